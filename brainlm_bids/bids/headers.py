"""What the sidecars and the header of an image record, and what is wrong with them.

An image of a BIDS data set comes in. Its metadata go out, and problems in one line each, so that a
broken run never reaches the workflow.
"""

import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.errors import UserError
from brainlm_bids.files import reading
from brainlm_bids.image_files import open_image
from brainlm_bids.image_headers import (
    OrientationMissingError,
    check_head,
    check_stored,
    disagreement,
    has_orientation,
    read_grid,
    repetition_time,
    squeezed,
)
from brainlm_bids.notices import Kind, Notice, notice
from brainlm_bids.parcels.sampling import MINIMUM_VOLUMES

# Repetition times of fMRI lie well within; a larger number is one in milliseconds.
SHORTEST_TR, LONGEST_TR = 0.05, 30.0
# Of a lesion mask: the value from which on a voxel is marked, and the share of an image that no
# lesion exceeds.
LEAST_OF_MASK, LARGEST_OF_IMAGE = 0.5, 0.4


# Loads the header of an image, as nibabel does.
Loader = Callable[[Path], Any]


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


def metadata_problem(path: Path, metadata: dict[str, Any]) -> str | None:
    """What is wrong with the metadata of a BOLD run, in one line; None if nothing is."""
    tr = metadata.get("RepetitionTime")
    if tr is None and "VolumeTiming" in metadata:
        return f"{path.name}: VolumeTiming without RepetitionTime (sparse) is not supported"
    if tr is None:
        return (
            f"{path.name}: no RepetitionTime in its sidecars; add it (in seconds) to the JSON file"
        )
    if is_tr(tr):
        return None
    return f"{path.name}: RepetitionTime {not_a_tr(tr, 'in its sidecar')}; correct the JSON file"


def not_a_tr(value: object, where: str = "") -> str:
    """What to say of a value that is no repetition time.

    >>> not_a_tr(735)
    '735 is not a time in seconds; 735 ms are 0.735 s'
    """
    meant = ""
    if _is_number(value) and is_tr(value / 1000):
        meant = f"; {value:g} ms are {value / 1000:g} s"
    shown = f"{value:g}" if isinstance(value, float) else repr(value)
    return f"{' '.join(filter(None, (shown, where)))} is not a time in seconds{meant}"


def is_tr(value: object) -> bool:
    """Whether a value is a number of seconds that can be a repetition time.

    >>> is_tr(0.735), is_tr(735), is_tr("2"), is_tr(float("nan"))
    (True, False, False, False)
    """
    return _is_number(value) and SHORTEST_TR <= value <= LONGEST_TR


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def look_at_image(
    path: Path,
    tr: float,
    orientation: str | None = None,
    *,
    raw: bool = True,
    loader: Loader = open_image,
) -> Look:
    """Look at the header of a BOLD image, not at its values.

    Parameters
    ----------
    path
        The image.
    tr
        Repetition time of its sidecar, in seconds.
    orientation
        Where its axes lead, such as "LAS", if the header does not record it.
    raw
        Whether the image is raw; one in template space needs its own header.
    loader
        Of headers.
    """

    def look(image: Any) -> Look:
        grid = read_grid(image, orientation)
        if len(grid.shape) != 4:
            raise UserError(f"is {len(grid.shape)}-D {grid.shape}, not a 4-D time series")
        check_head(grid)
        n_volumes = grid.shape[3]
        if n_volumes < MINIMUM_VOLUMES:
            return Look(skip=f"{path.name}: {n_volumes} volumes, fewer than {MINIMUM_VOLUMES}")
        return Look(warnings=(*_about_axes(image, path, orientation), *_about_tr(image, path, tr)))

    return _looked_at(path, look, fixable=raw, loader=loader)


def look_at_t1w(path: Path, orientation: str | None = None, *, loader: Loader = open_image) -> Look:
    """Look at the header of a T1w image, not at its values; parameters as of `look_at_image`."""

    def look(image: Any) -> Look:
        grid = read_grid(image, orientation)
        if len(grid.shape) != 3:
            raise UserError(
                f"holds {grid.shape[3]} volumes, not one T1w image; keep one of them, or their mean"
                if len(grid.shape) == 4
                else f"is {len(grid.shape)}-D {grid.shape}, not a T1w image"
            )
        check_head(grid, whole=True)
        return Look(warnings=_about_axes(image, path, orientation))

    return _looked_at(path, look, fixable=True, loader=loader)


def image_shape(path: Path, loader: Loader = open_image) -> tuple[int, ...]:
    """(X, Y, Z) or (X, Y, Z, T) by the header of an image; UserError where it cannot be read."""
    with reading(path):
        return squeezed(loader(path).shape)


def image_grid(
    path: Path, orientation: str | None = None, loader: Loader = open_image
) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Shape and affine (4, 4) of an image by its header; UserError where it cannot be read.

    Parameters
    ----------
    path
        The image.
    orientation
        Where its axes lead, such as "LAS", if the header does not record it.
    loader
        Of headers.
    """
    with reading(path):
        grid = read_grid(loader(path), orientation)
        return grid.shape, grid.affine


def look_at_lesion_mask(path: Path, t1w: Path, orientation: str | None = None) -> Look:
    """Look at the header and the values of a lesion mask.

    Parameters
    ----------
    path, t1w
        The mask, and the T1w image whose lesion it marks. Their grids may differ.
    orientation
        Where the axes of images lead whose headers do not record it.
    """

    def look(image: Any) -> Look:
        grid = read_grid(image, orientation)
        if len(grid.shape) != 3:
            raise UserError(f"is {len(grid.shape)}-D {grid.shape}, not a mask of one T1w image")
        marked = np.argwhere(np.asarray(image.dataobj).reshape(grid.shape) > LEAST_OF_MASK)
        if not len(marked):
            raise UserError("the mask is empty")
        if len(marked) > LARGEST_OF_IMAGE * math.prod(grid.shape):
            raise UserError(
                f"the mask marks {len(marked) / math.prod(grid.shape):.0%} of its image; are "
                "lesion and the rest exchanged?".replace("%", " %")
            )
        head = read_grid(open_image(t1w), orientation)
        to_t1w = np.linalg.inv(head.affine) @ grid.affine
        voxels = np.rint(marked @ to_t1w[:3, :3].T + to_t1w[:3, 3])
        if not ((voxels >= 0) & (voxels < head.shape[:3])).all(axis=1).any():
            raise UserError(f"the mask lies outside of {t1w.name}; is its header right?")
        return Look()

    return _looked_at(path, look, fixable=True)


def _looked_at(
    path: Path, look: Callable[[Any], Look], *, fixable: bool, loader: Loader = open_image
) -> Look:
    """What a look finds in a file; whatever stands in the way as a problem."""
    import nibabel as nb

    try:
        image = loader(path)
        check_stored(image)
        return look(image)
    except OrientationMissingError as error:
        text = f"{path.name}: {error}; correct the header"
        if fixable:
            text += ", or say where its axes lead, for example with --assume-orientation LAS"
        return Look(text)
    except UserError as error:
        text = str(error)
        return Look(text if path.name in text else f"{path.name}: {text}")
    except nb.spatialimages.HeaderDataError as error:
        return Look(f"{path.name}: its header is damaged ({error})")
    except (OSError, EOFError, ValueError, zlib.error, nb.filebasedimages.ImageFileError) as error:
        why = " ".join(str(error).split())
        return Look(f"{path.name}: cannot be read as an image ({why})")


def _about_axes(image: Any, path: Path, orientation: str | None) -> tuple[Notice, ...]:
    if not has_orientation(image):
        text = (
            f"{path.name}: the header does not record which way the axes run; {orientation} is "
            "assumed, as given by the user. If that is wrong, left and right may be exchanged."
        )
        return (notice(Kind.ORIENTATION_ASSUMED, text),)
    found = disagreement(image)
    if found is None:
        return ()
    if found.flipped:
        text = (
            f"{path.name}: sform and qform of the header disagree about the directions of the "
            "axes, for example about left and right. The sform is used; check it."
        )
        return (notice(Kind.ORIENTATION_CONTRADICTED, text),)
    text = (
        f"{path.name}: the sform and the rest of the header (qform, voxel sizes) disagree by up to "
        f"{found.millimetres:.3g} mm. The sform is used."
    )
    return (notice(Kind.AFFINES_DISAGREE, text),)


def _about_tr(image: Any, path: Path, tr: float) -> tuple[Notice, ...]:
    header_tr = repetition_time(image)
    return () if header_tr is None else tr_mismatch(path.name, header_tr, tr)


def tr_mismatch(
    name: str,
    other: float,
    tr: float,
    *,
    where: str = "in the image header",
    source: str = "of the sidecar",
) -> tuple[Notice, ...]:
    """Warn about two repetition times of one recording.

    Parameters
    ----------
    name
        Of its file.
    other, tr
        The one that is not used, and the one that is, s.
    where, source
        Of each, in words.

    Returns
    -------
    tuple of Notice
        Empty where they differ by no more than 1 %.

    Examples
    --------
    >>> tr_mismatch("a.nii", 1.0, 2.0)[0].text
    'a.nii: the repetition time in the image header is 1 s; the 2 s of the sidecar are used.'
    >>> tr_mismatch("a.nii", 2000.0, 2.0)
    ()
    """
    # a number of milliseconds under the unit of seconds is the same time
    if any(abs(other * k - tr) <= 0.01 * tr for k in (1.0, 1e-3)):
        return ()
    text = f"{name}: the repetition time {where} is {other:g} s; the {tr:g} s {source} are used."
    return (notice(Kind.TR_MISMATCH, text),)


def look_at_cifti(path: Path, tr: float) -> Look:
    """Look at the length and the sampling of a CIFTI series of grayordinates; tr in seconds."""

    def look(image: Any) -> Look:
        from nibabel.cifti2 import BrainModelAxis, Cifti2Image, SeriesAxis

        is_cifti = isinstance(image, Cifti2Image)
        axes = [image.header.get_axis(k) for k in (0, 1)] if is_cifti else []
        if not axes or not all(map(isinstance, axes, (SeriesAxis, BrainModelAxis))):
            raise UserError("is not a CIFTI series of grayordinates")
        if len(axes[0]) < MINIMUM_VOLUMES:
            return Look(skip=f"{path.name}: {len(axes[0])} volumes, fewer than {MINIMUM_VOLUMES}")
        if axes[0].unit != "SECOND":
            return Look()
        return Look(warnings=tr_mismatch(path.name, float(axes[0].step), tr))

    return _looked_at(path, look, fixable=False)
