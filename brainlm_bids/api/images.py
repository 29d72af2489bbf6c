"""Images that users pass, and values of parcels painted into images for nilearn's plots."""

import warnings
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pandas as pd
from nibabel.spatialimages import SpatialImage
from numpy.typing import ArrayLike, NDArray

from brainlm_bids import resources
from brainlm_bids.api.errors import value_errors
from brainlm_bids.errors import UserError
from brainlm_bids.image_files import check_image
from brainlm_bids.image_headers import OrientationMissingError, check_stored, read_grid
from brainlm_bids.resources.atlas import Atlas
from brainlm_bids.resources.images import named


def to_img(
    values: "ArrayLike | pd.Series | pd.DataFrame",
    *,
    atlas: str | Path | None = None,
    offline: bool = False,
) -> nb.Nifti1Image:
    """Paint one value per parcel into the atlas's volume.

    Parameters
    ----------
    values
        (424,) in the atlas's order; or a Series, or a DataFrame of one column, indexed by the names
        of the parcels in any order. Parcels that a Series lacks become 0, as NaN does.
    atlas
        "A424", "A424approx", or a file; by default the real atlas if it can be had, else the
        approximation.
    offline
        Never download the atlas.

    Returns
    -------
    nibabel.Nifti1Image
        (91, 109, 91) float32 at 2 mm for A424, 0 outside the parcels.

    Raises
    ------
    ValueError
        If the number of values is not 424, a name is no parcel, or a table has several columns.

    Examples
    --------
    >>> import numpy as np
    >>> from brainlm_bids import to_img
    >>> image = to_img(np.arange(424.0), atlas="A424approx")
    >>> float(image.get_fdata().max())
    423.0
    """
    ordered = _in_order(values)
    _, labels, affine = load_atlas(atlas, offline=offline)
    return paint(ordered.astype(np.float32), labels, affine)


def load_atlas(
    atlas: str | Path | None, *, offline: bool
) -> tuple[Atlas, NDArray[np.int16], NDArray[np.float64]]:
    """The atlas, its labels (X, Y, Z) and its affine; a warning if it is not the one expected.

    Whoever names no atlas expects A424: the approximation in its place must not go unnoticed.
    """
    with value_errors():
        found = resources.find_atlas(None if atlas is None else str(atlas), offline=offline)
        labels, affine = found.load()
    if atlas is None:
        for notice in found.warnings:
            warnings.warn(str(notice), UserWarning, stacklevel=3)
    return found, np.asarray(labels, dtype=np.int16), affine


def paint(
    values: NDArray[Any], labels: NDArray[np.int16], affine: NDArray[np.float64]
) -> nb.Nifti1Image:
    """Values (424,) or (T, 424) as an image of labels 1 to 424, (X, Y, Z) or (X, Y, Z, T)."""
    known = np.nan_to_num(values)
    table = np.concatenate([np.zeros_like(known[..., :1]), known], axis=-1).T
    image = nb.Nifti1Image(table[labels.astype(np.int64)], affine)
    image.header.set_xyzt_units("mm", "sec")
    return image


def _in_order(values: Any) -> NDArray[np.float64]:
    names = list(resources.parcels().names)
    if isinstance(values, pd.DataFrame):
        if values.shape[1] != 1:
            raise ValueError(f"the table has {values.shape[1]} columns; hand in one of them")
        values = values.iloc[:, 0]
    if isinstance(values, pd.Series):
        unknown = [name for name in values.index if name not in names]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no parcel of A424; index by the parcels' names")
        if values.index.has_duplicates:
            raise ValueError(f"{values.index[values.index.duplicated()][0]!r} occurs twice")
        return values.reindex(names).to_numpy(dtype=np.float64)
    array = np.asarray(values, dtype=np.float64).squeeze()
    if array.shape != (len(names),):
        raise ValueError(f"shape {array.shape}; expected {len(names)} values, one for each parcel")
    return array


def load(imgs: Any) -> tuple[SpatialImage, NDArray[Any]]:
    """An image of three or four dimensions, and its data."""
    from nilearn.image import load_img

    path = Path(imgs) if isinstance(imgs, str | Path) else None
    name = "the image" if path is None else path.name
    with value_errors():
        if path is not None and "*" not in name:  # nilearn understands wildcards
            check_image(path.expanduser(), whole=True)
    with value_errors(), named(path or Path(name)):
        image = load_img(imgs)
        image = _plain(image)
        data = np.asanyarray(image.dataobj)
    if data.size == 0:
        raise ValueError(f"{name}: shape {data.shape}. The image is empty")
    if data.ndim not in (3, 4):
        raise ValueError(f"{name}: shape {data.shape}; a 4-D image is needed")
    if not np.issubdtype(data.dtype, np.number) and data.dtype != np.bool_:
        raise ValueError(f"{name}: values of type {data.dtype}; numbers are needed")
    return image, data


def _plain(image: Any) -> Any:
    """The image with the shape and the affine that its header means."""
    check_stored(image)
    try:
        shape, affine = read_grid(image)
    except OrientationMissingError as error:
        raise UserError(f"{error}; set its sform") from None
    if shape == image.shape and np.array_equal(affine, image.affine):
        return image
    return nb.Nifti1Image(np.asanyarray(image.dataobj).reshape(shape), affine)


def binary_mask(mask_img: Any) -> nb.Nifti1Image:
    """A mask as 0 and 1; of several volumes, what any of them marks."""
    image, data = load(mask_img)
    finite = np.isfinite(data)
    if not finite.all():
        warnings.warn("Non-finite values detected. They do not belong to the mask.", stacklevel=2)
    mask = finite & (np.where(finite, data, 0) > 0)
    if mask.ndim == 4:
        mask = mask.any(axis=3)
    if not mask.any():
        raise ValueError("The mask is invalid as it is empty: it masks all data.")
    return nb.Nifti1Image(mask.astype(np.uint8), image.affine)
