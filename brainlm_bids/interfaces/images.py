"""Images between files and arrays: (X, Y, Z) or (X, Y, Z, T) float32 with an affine, RAS+ mm."""

from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from numpy.typing import NDArray

from brainlm_bids.image_files import open_image
from brainlm_bids.image_headers import check_stored, read_grid
from brainlm_bids.resources.images import named, opened


def load_image(
    path: str, orientation: str | None = None
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Read an image.

    Parameters
    ----------
    path
        The file.
    orientation
        Where its axes lead, such as "LAS", if the header does not record it.

    Returns
    -------
    data
        (X, Y, Z) or (X, Y, Z, T) float32; axes of length 1 beyond the third are left out.
    affine
        (4, 4) to RAS+ mm.

    Raises
    ------
    UserError
        If the file is damaged, or its header is not understood.
    """
    with opened(path) as image:
        return _arrays(image, orientation)


def _arrays(image: Any, orientation: str | None) -> tuple[NDArray[Any], NDArray[np.float64]]:
    check_stored(image)
    shape, affine = read_grid(image, orientation)
    stored = image.dataobj
    if len(shape) < 4:
        return np.asarray(stored, dtype=np.float32).reshape(shape), affine
    # Read and scaled volume by volume: neither what is stored nor a float64 copy of the run is in
    # memory beside it.
    volumes = _stored_volumes(stored, shape)
    data = np.empty(shape, dtype=np.float32, order="F")
    for t in range(shape[3]):
        data[..., t] = volumes[..., t] * float(stored.slope) + float(stored.inter)
    return data, affine


def _stored_volumes(stored: Any, shape: tuple[int, ...]) -> Any:
    """The values of a run (X, Y, Z, T) as they are stored, to be read one volume after another."""
    if type(stored) is not ArrayProxy or stored.order != "F":
        return stored.get_unscaled().reshape(shape)
    # the file stays open: a compressed one is decompressed once, from its start to its end
    return ArrayProxy(
        stored.file_like,
        (shape, stored.dtype, stored.offset),
        mmap=False,
        order="F",
        keep_file_open=True,
    )


def load_affine(path: str, orientation: str | None = None) -> NDArray[np.float64]:
    """Read the affine of an image from its header.

    Parameters
    ----------
    path
        The file.
    orientation
        Where its axes lead, such as "LAS", if the header does not record it.

    Returns
    -------
    ndarray
        (4, 4) to RAS+ mm.

    Raises
    ------
    UserError
        If the file is damaged.
    """
    with named(Path(path)):
        return read_grid(open_image(path), orientation).affine


def is_plain(path: str) -> bool:
    """Whether nibabel reads the same shape and affine from a file as `load_image`."""
    with named(Path(path)):
        image = open_image(path)
        shape, affine = read_grid(image)
        return shape == image.shape and np.array_equal(affine, image.affine)


def load_mask(path: str) -> NDArray[np.bool_]:
    """Read a mask.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    ndarray
        (X, Y, Z) bool.

    Raises
    ------
    UserError
        If the file is damaged.
    """
    return load_image(path)[0] > 0.5


def save_image(
    path: Path,
    data: NDArray[Any],
    affine: NDArray[np.float64],
    tr: float | None = None,
    coarsest_step: float = 0.0,
) -> str:
    """Save an image in scanner units (mm, s); bool as uint8.

    Parameters
    ----------
    path
        The file.
    data
        (X, Y, Z) or (X, Y, Z, T).
    affine
        (4, 4) to RAS+ mm.
    tr
        Repetition time, s.
    coarsest_step
        If steps of int16 with slope and intercept are no wider than this, the image is stored so,
        in half of the space of float32.

    Returns
    -------
    str
        The file.
    """
    stored = data.astype(np.uint8) if data.dtype == bool else data
    image = nb.Nifti1Image(stored, affine)
    image.header.set_xyzt_units("mm", "sec")
    if tr is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], tr))
    if coarsest_step > 0 and float(data.max() - data.min()) / 65_000 <= coarsest_step:
        image.set_data_dtype(np.int16)
    image.to_filename(path)
    return str(path)
