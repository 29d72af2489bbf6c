"""Normalisation of T1w images where it is hard: fixed and moving image are different averages.

Simulated heads are warped from the packaged ICBM 2009a template and registered to MNI152NLin6Asym,
if that is available; their truth treats the two MNI spaces as one, as every user of an atlas does,
so that 1 to 2 mm of the errors are theirs. Real people have no truth: their tissues, from three
classes of intensity, are compared with those of the template. `--normalization fast` is ours, its
peers are `--normalization syn`, SyN with antspyx' own settings, and the affine alone.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.registration_quality import SHARED, Person, real_people, simulated
from benchmarks.table import Row
from brainlm_bids import resources
from brainlm_bids.preproc.affine import Matrix, apply, grid_points, invert
from brainlm_bids.preproc.registration import ants as registration
from brainlm_bids.preproc.registration.quality import dice
from brainlm_bids.preproc.registration.transforms import ItkTransform, PointMap, to_ants

TISSUES = {1: "CSF", 2: "grey", 3: "white"}  # labels of FAST
FAST_LABELS = SHARED / "atlas" / "MNI152_T1_2mm_Brain_FAST_seg.nii.gz"
# Ours may be this much worse than SyN: what another seed changes.
SLACK_MM, SLACK_DICE = 0.1, 0.005

Grid = tuple[NDArray[np.float32], Matrix, NDArray[np.bool_]]


def rows(seed: int, quick: bool) -> Iterator[Row]:
    """Measure the rows of normalisation."""
    found = resources.find_template(offline=True)
    template, affine = found.load_t1w()
    grid = template, affine, found.load_brain_mask()[0]
    with TemporaryDirectory() as folder:
        heads = [simulated(Path(folder), seed + k) for k in range(1 if quick else 5)]
        yield from _distances(heads, grid, found.space, quick)
    if FAST_LABELS.is_file() and not quick:
        for person in real_people():
            yield from _tissues(person, grid)


def ways(person: Person, grid: Grid, *, with_peers: bool = True) -> dict[str, PointMap]:
    """Every way from the template to a person's T1w image, by its name; ours is `fast`."""
    template, affine, mask = grid
    anatomy, head = person.t1w.anatomy, person.t1w

    def ours(method: Literal["fast", "syn"]) -> ItkTransform:
        return registration.register_to_template(
            anatomy.t1w,
            head.affine,
            template,
            affine,
            moving_mask=anatomy.brain_mask,
            template_mask=mask,
            seed=42,
            method=method,
        )

    found: dict[str, PointMap] = {"fast": ours("fast"), "--normalization syn": ours("syn")}
    if with_peers:
        import ants

        fixed = to_ants(np.where(mask, template, 0), affine)
        moving = to_ants(np.where(anatomy.brain_mask, anatomy.t1w, 0), head.affine)
        for name, kind in (("antspyx SyN", "SyN"), ("affine only", "Affine")):
            done = ants.registration(
                fixed, moving, type_of_transform=kind, write_composite_transform=True
            )
            found[name] = ItkTransform.from_file(str(done["fwdtransforms"]))
    return found


def _distances(heads: list[Person], grid: Grid, space: str, quick: bool) -> Iterator[Row]:
    _, affine, mask = grid
    points = apply(affine, np.argwhere(mask)[::23])
    measured: dict[str, list[NDArray[np.float64]]] = {}
    for person in heads:
        assert person.warp is not None
        truth = person.warp.to_t1w(points)
        for name, way in ways(person, grid, with_peers=not quick).items():
            apart = np.linalg.norm(way(points) - truth, axis=1)
            measured.setdefault(name, []).append(np.percentile(apart, [50, 95]))
    means = {name: np.mean(values, axis=0) for name, values in measured.items()}
    note = f"mean of {len(heads)} heads, to {space}"
    for k, measure in enumerate(("median (mm)", "95th percentile (mm)")):
        peers = {name: float(value[k]) for name, value in means.items()}
        ours = peers.pop("fast")
        bound = f"<= {peers['--normalization syn'] + SLACK_MM:.2f}"
        yield Row("T1w to MNI, another average", measure, ours, bound, peers, note)


def _tissues(person: Person, grid: Grid) -> Iterator[Row]:
    image = nib.Nifti1Image.from_filename(FAST_LABELS)
    labels = np.asarray(image.dataobj).round().astype(int)
    points = grid_points(labels.shape, np.asarray(image.affine))
    anatomy = person.t1w.anatomy
    classes = tissue_classes(anatomy.t1w, anatomy.brain_mask)
    overlaps: dict[str, dict[int, float]] = {}
    for name, way in ways(person, grid).items():
        voxels = apply(invert(person.t1w.affine), way(points)).T
        there = ndimage.map_coordinates(classes, voxels, order=0).reshape(labels.shape)
        overlaps[name] = {k: dice(there == k, labels == k) for k in TISSUES}
    for k, tissue in TISSUES.items():
        peers = {name: values[k] for name, values in overlaps.items()}
        ours = peers.pop("fast")
        bound = f">= {peers['--normalization syn'] - SLACK_DICE:.3f}"
        yield Row("T1w to MNI, tissues", f"Dice of {tissue}", ours, bound, peers, person.name)


def tissue_classes(
    image: NDArray[np.float32], mask: NDArray[np.bool_], rounds: int = 50
) -> NDArray[np.int64]:
    """Three classes of intensity (Lloyd's k-means) as FAST numbers them; 0 outside the mask.

    >>> values = np.repeat([1.0, 5.0, 9.0], 4).reshape(3, 2, 2)
    >>> tissue_classes(values, values > 0)[:, 0, 0].tolist()
    [1, 2, 3]
    """
    values = image[mask]
    centres = np.percentile(values, [10, 50, 90])
    for _ in range(rounds):
        members = np.searchsorted((centres[1:] + centres[:-1]) / 2, values)
        counts = np.maximum(np.bincount(members, minlength=3), 1)
        centres = np.bincount(members, values, minlength=3) / counts
    edges = (centres[1:] + centres[:-1]) / 2
    return np.where(mask, 1 + np.searchsorted(edges, image), 0)
