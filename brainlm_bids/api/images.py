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
    >>> from brainlm_bids import to_img
    >>> image = to_img(np.arange(424.0), atlas="A424approx")
    >>> float(image.get_fdata().max())
    423.0
    """
    table = np.concatenate([[0.0], np.nan_to_num(_in_order(values))]).astype(np.float32)
    with value_errors():
        found = resources.find_atlas(None if atlas is None else str(atlas), offline=offline)
        labels, affine = found.load()
    image = nb.Nifti1Image(table[np.asarray(labels, dtype=np.int64)], affine)
    image.header.set_xyzt_units("mm")
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
