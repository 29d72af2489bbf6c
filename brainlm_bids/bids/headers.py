"""What the sidecars and the header of an image record, and what is wrong with them.

An image of a BIDS data set comes in. Its metadata go out, and problems in one line each, so that a
broken run never reaches the workflow.
"""

from pathlib import Path
from typing import Any, NamedTuple

from brainlm_bids.bids.names import parse
from brainlm_bids.files import read_json
from brainlm_bids.notices import Kind, Notice, notice
from brainlm_bids.parcels.sampling import MINIMUM_VOLUMES

# Repetition times of fMRI are far shorter; a larger number is one in milliseconds.
LONGEST_TR = 30.0


class Look(NamedTuple):
    """What an image looks like.

    Attributes
    ----------
    problem
        Why it cannot be processed, in one line.
    skip
        The policy by which it is left out, in one line.
    warnings
        What should be known of it.
    """

    problem: str | None = None
    skip: str | None = None
    warnings: tuple[Notice, ...] = ()


def sidecars(path: Path, bids_dir: Path) -> list[Path]:
    """JSON files that hold for an image by BIDS' inheritance, the most general first."""
    image = parse(path.name)
    inside = [folder for folder in path.parents if folder.is_relative_to(bids_dir)]
    found: list[Path] = []
    for folder in reversed(inside):
        held = []
        for file in folder.glob(f"*{image.suffix}.json"):
            name = parse(file.name)
            if name.suffix == image.suffix and name.entities.items() <= image.entities.items():
                held.append((len(name.entities), file.name, file))
        found += [file for *_, file in sorted(held)]
    return found


def read_metadata(path: Path, bids_dir: Path) -> dict[str, Any]:
    """The merged sidecars of an image, the nearest wins; UserError names a broken one."""
    metadata: dict[str, Any] = {}
    for file in sidecars(path, bids_dir):
        metadata |= read_json(file)
    return metadata


def metadata_problem(path: Path, metadata: dict[str, Any]) -> str | None:
    """What is wrong with the metadata of a BOLD run, in one line; None if nothing is."""
    tr = metadata.get("RepetitionTime")
    if tr is None and "VolumeTiming" in metadata:
        return f"{path.name}: VolumeTiming without RepetitionTime (sparse) is not supported"
    if tr is None:
        return (
            f"{path.name}: no RepetitionTime in its sidecars; add it (in seconds) to the JSON file"
        )
    if isinstance(tr, bool) or not isinstance(tr, int | float) or not 0 < tr < LONGEST_TR:
        return f"{path.name}: RepetitionTime {tr!r} in its sidecar is not a time in seconds"
    return None


def look_at_image(path: Path, tr: float) -> Look:
    """Look at the header of a BOLD image, not at its values.

    Parameters
    ----------
    path
        The image.
    tr
        Repetition time of its sidecar, in seconds.
    """
    import nibabel as nb

    try:
        image = nb.load(path)
        shape, zooms = image.shape, image.header.get_zooms()  # type: ignore[attr-defined]
    except (OSError, EOFError, ValueError, nb.filebasedimages.ImageFileError) as error:
        return Look(f"{path.name}: cannot be read as an image ({error})")
    if len(shape) != 4:
        return Look(f"{path.name}: is {len(shape)}-D {shape}, not a 4-D time series")
    if min(shape[:3]) < 4:
        return Look(f"{path.name}: {shape[:3]} voxels are too few for a brain")
    if shape[3] < MINIMUM_VOLUMES:
        return Look(skip=f"{path.name}: {shape[3]} volumes, fewer than {MINIMUM_VOLUMES}")
    header_tr = _header_tr(image, float(zooms[3]))
    if header_tr and abs(header_tr - tr) > 0.01 * tr:
        text = (
            f"{path.name}: the repetition time in the image header is {header_tr:g} s; the "
            f"{tr:g} s of the sidecar are used."
        )
        return Look(warnings=(notice(Kind.TR_MISMATCH, text),))
    return Look()


def _header_tr(image: Any, step: float) -> float:
    unit = image.header.get_xyzt_units()[1]
    return step * {"msec": 1e-3, "usec": 1e-6}.get(unit, 1.0)


def look_at_cifti(path: Path) -> Look:
    """Look at the length of a CIFTI series of grayordinates."""
    import nibabel as nb

    n_volumes = nb.load(path).shape[0]  # type: ignore[attr-defined]
    if n_volumes >= MINIMUM_VOLUMES:
        return Look()
    return Look(skip=f"{path.name}: {n_volumes} volumes, fewer than {MINIMUM_VOLUMES}")
