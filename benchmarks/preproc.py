"""Speed and memory of the preprocessing, as ratios to named peers in the same run.

    python -m benchmarks.preproc            motion and parcels, on a phantom
    python -m benchmarks.preproc --large    memory and disk of a run of UK Biobank's size
    python -m benchmarks.preproc --chain DATASET   a T1w and a BOLD run through everything

Every measurement runs in a process of its own: seconds of CPU time over all threads, which other
users of the machine do not lengthen, and the largest resident memory beyond what the process held
when its input had been read. Thread counts are the caller's (OMP_NUM_THREADS,
ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS), the same for all.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks import large
from benchmarks.chain import chain_rows
from benchmarks.process import measured
from benchmarks.table import HEADER, Row, cells, holds
from brainlm_bids.phantom import oracle

# In the steady state, as all but a few volumes of a run are.
MOTION_VOLUMES = slice(4, 40)
N_PARCEL_VOLUMES = 240
LARGE_BOUND_GB = 2.0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--chain", type=Path, metavar="DATASET")
    parser.add_argument("--volumes", type=int, default=24, help="that slow peers are given")
    parser.add_argument("--folder", type=Path, help="to keep the large run in")
    options = parser.parse_args(arguments)
    if options.large:
        found = large_rows(options.folder)
    elif options.chain:
        found = chain_rows(options.chain, options.volumes)
    else:
        found = kernel_rows(options.seed)
    missed = False
    for line in (HEADER, tuple("---" for _ in HEADER)):
        print("| " + " | ".join(line) + " |")
    for row in found:
        print("| " + " | ".join(cells(row)) + " |", flush=True)
        missed |= not holds(row)
    return int(missed)


# --- kernels ----------------------------------------------------------------------------------


def kernel_rows(seed: int) -> Iterator[Row]:
    from benchmarks.accuracy_geometry import make_case

    with TemporaryDirectory() as folder:
        case = make_case(Path(folder), seed, 60)
        path = Path(folder) / "case.npz"
        np.savez(path, bold=case.bold, affine=case.affine, reference=case.reference)
        n_volumes = MOTION_VOLUMES.stop - MOTION_VOLUMES.start
        ours, theirs = (measured(f, path)[0] / n_volumes for f in (our_motion, antspyx_motion))
        yield Row("motion", "s per volume", ours, peers={"antspyx": theirs})
        yield Row("motion", "times faster than antspyx", theirs / ours, ">= 15")
        ours, held, first = measured(our_parcels, path)
        theirs, their_held, second = measured(nilearn_parcels, path)
        with np.errstate(invalid="ignore", divide="ignore"):
            r = oracle.correlations(first, second)
        note = f"median r of a parcel {np.nanmedian(r):.4f}; nilearn resamples linearly"
        yield Row("W", "s", ours, peers={"nilearn": theirs}, note=note)
        yield Row("W", "times faster than nilearn", theirs / ours, ">= 10")
        yield Row("W", "share of nilearn's memory", held / their_held, "<= 0.25")


def our_motion(path: Path) -> Iterator[Any]:
    from brainlm_bids.preproc.motion import realign as motion
    from brainlm_bids.preproc.motion import splines

    data = np.load(path)
    affine, reference = data["affine"], data["reference"]
    # as nibabel holds a run
    bold = np.asfortranarray(data["bold"][..., MOTION_VOLUMES])
    yield
    yield splines.resample(bold, affine, motion.realign(bold, affine, reference)).shape


def antspyx_motion(path: Path) -> Iterator[Any]:
    import ants

    data = np.load(path)
    bold, reference = data["bold"][..., MOTION_VOLUMES], data["reference"]
    spacing = np.sqrt((data["affine"][:3, :3] ** 2).sum(axis=0)).tolist()
    run = ants.from_numpy(np.ascontiguousarray(bold), spacing=[*spacing, 1.0])
    fixed = ants.from_numpy(np.ascontiguousarray(reference), spacing=spacing)
    yield
    yield len(ants.motion_correction(run, fixed=fixed, type_of_transform="Rigid"))


def _parcel_input(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    from brainlm_bids import resources

    data = np.load(path)
    labels, atlas_affine = resources.approximate_atlas()
    bold = data["bold"]
    repeats = -(-N_PARCEL_VOLUMES // bold.shape[3])
    run = np.tile(bold, repeats)[..., :N_PARCEL_VOLUMES]
    # as nibabel holds a run
    return np.asfortranarray(run), data["affine"], labels, atlas_affine


def our_parcels(path: Path) -> Iterator[Any]:
    """The operator built and applied; the run taken to lie in template space."""
    from brainlm_bids.parcels import operator as parcellation
    from brainlm_bids.preproc.affine import labelled_points, world_to_voxel

    bold, affine, labels, atlas_affine = _parcel_input(path)
    yield
    names, points = labelled_points(labels.astype(np.int32), atlas_affine)
    mask = np.ones(bold.shape[:3], dtype=bool)
    operator, _ = parcellation.build_operator(
        names, world_to_voxel(points, affine), mask.shape, mask
    )
    yield parcellation.parcellate(operator, bold)


def nilearn_parcels(path: Path) -> Iterator[Any]:
    """The run resampled to the atlas' grid, then its labels' means."""
    from nilearn.image import resample_to_img
    from nilearn.maskers import NiftiLabelsMasker

    bold, affine, labels, atlas_affine = _parcel_input(path)
    run, atlas = nib.Nifti1Image(bold, affine), nib.Nifti1Image(labels, atlas_affine)
    yield
    resampled = resample_to_img(
        run, atlas, interpolation="linear", force_resample=True, copy_header=True
    )
    yield NiftiLabelsMasker(atlas, resampling_target=None).fit_transform(resampled)


# --- a large run ------------------------------------------------------------------------------


def large_rows(folder: Path | None) -> Iterator[Row]:
    """Peak memory of each stage that holds the run, and the disk that its work takes."""
    with TemporaryDirectory() as temporary:
        where = folder or Path(temporary)
        paths = large.write_case(where)
        raw = Path(paths["bold"]).stat().st_size
        outputs: dict[str, Any] = {}
        for stage in (run_realign, run_project, run_extract, run_decompose):
            work = Path(temporary) / stage.__name__
            work.mkdir()
            seconds, _, (peak, made) = measured(stage, str(work), paths | outputs)
            outputs |= made
            name = stage.__name__.removeprefix("run_")
            note = f"{seconds:.0f} s"
            yield Row(name, "peak memory (GB)", peak, f"<= {LARGE_BOUND_GB}", note=note)
        used = sum(p.stat().st_size for p in Path(temporary).rglob("*") if p.is_file())
        used -= sum(
            Path(p).stat().st_size for p in paths.values() if Path(temporary) in Path(p).parents
        )
        yield Row(
            "work folder", "times the raw run", used / raw, "<= 3", note=f"{used / 1e9:.2f} GB"
        )


def _run(interface: Any, work: str, names: tuple[str, ...]) -> tuple[float, dict[str, Any]]:
    done = interface.run(cwd=work)
    used = json.loads((Path(work) / "resources.json").read_text())
    return used["peak_memory_mb"] / 1024, {name: getattr(done.outputs, name) for name in names}


def run_realign(work: str, paths: dict[str, str]) -> Iterator[Any]:
    from brainlm_bids.interfaces.functional import Realign

    yield
    names = ("bold", "boldref", "brain_mask", "motion")
    yield _run(Realign(bold=paths["bold"]), work, names)


def run_project(work: str, paths: dict[str, str]) -> Iterator[Any]:
    from brainlm_bids.interfaces.functional import Project

    yield
    given = {name: paths[name] for name in ("atlas", "boldref", "brain_mask", "transform")}
    yield _run(Project(**given, min_parcel_coverage=0.5), work, ("operator", "tissues", "tissue"))


def run_extract(work: str, paths: dict[str, str]) -> Iterator[Any]:
    from brainlm_bids.interfaces.functional import Extract

    yield
    names = ("bold", "brain_mask", "motion", "operator", "tissues", "tissue")
    thresholds = {"fd_spike_threshold": 0.5, "dvars_spike_threshold": 1.5}
    given = {name: paths[name] for name in names}
    yield _run(Extract(tr=0.735, **thresholds, **given), work, ("parcels", "factor"))


def run_decompose(work: str, paths: dict[str, Any]) -> Iterator[Any]:
    from brainlm_bids.interfaces.denoising import Decompose

    yield
    given = {name: paths[name] for name in ("bold", "brain_mask", "motion", "factor")}
    yield _run(Decompose(seed=1, **given), work, ("components",))


if __name__ == "__main__":
    sys.exit(main())
