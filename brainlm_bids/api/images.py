"""Values of parcels to images, ready for nilearn's plotting functions."""

from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from brainlm_bids import resources
from brainlm_bids.api.series import value_errors


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
    with value_errors():
        found = resources.find_atlas(None if atlas is None else str(atlas), offline=offline)
        labels, affine = found.load()
    return paint(ordered, np.asarray(labels), affine)


def paint(
    values: NDArray[np.float64], labels: NDArray[np.int16], affine: NDArray[np.float64]
) -> nb.Nifti1Image:
    """Values (424,) or (T, 424) as an image of labels 1 to 424, (X, Y, Z) or (X, Y, Z, T)."""
    known = np.nan_to_num(values).astype(np.float32)
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
            raise ValueError(f"{values.index[values.index.duplicated()][0]!r} stands twice")
        return values.reindex(names).to_numpy(dtype=np.float64)
    array = np.asarray(values, dtype=np.float64).squeeze()
    if array.shape != (len(names),):
        raise ValueError(f"shape {array.shape}; expected {len(names)} values, one for each parcel")
    return array
