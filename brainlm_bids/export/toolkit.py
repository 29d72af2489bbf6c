"""The data set of BrainLM's toolkit: its columns, its order of parcels, its orientation.

From `convert_to_arrow_datasets` in toolkit/BrainLM_Toolkit.py of vandijklab/BrainLM at commit
b591d88, lines 190 to 330. The parcels are in the order of the atlas; the notebooks sort them
themselves by the data set of coordinates. Its robustly scaled column is not taken over: it
subtracts median / IQR instead of dividing by the IQR (line 298). Ours holds what the released
networks were trained on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.export.arrow import Feature, nested, value
from brainlm_bids.export.rows import Row

# Shorter recordings have no window of BrainLM; the toolkit leaves them out, too.
MIN_VOLUMES = 200
# Of UK Biobank, lines 240 and 241
GLOBAL_SD = 41.44047
GLOBAL_99TH_PERCENTILE = 111.13143061224855
PARTS = {"train": "train", "validation": "val", "test": "test"}
COORDINATES = "Brain_Region_Coordinates"
_RECORDINGS = (
    "Raw_Recording",
    "Voxelwise_RobustScaler_Normalized_Recording",
    "All_Patient_All_Voxel_Normalized_Recording",
    "Per_Patient_All_Voxel_Normalized_Recording",
    "Per_Patient_Per_Voxel_Normalized_Recording",
    "Per_Voxel_All_Patient_Normalized_Recording",
    "Subtract_Mean_Normalized_Recording",
    "Subtract_Mean_Divide_Global_STD_Normalized_Recording",
    "Subtract_Mean_Divide_Global_99thPercent_Normalized_Recording",
)
FEATURES: dict[str, Feature] = {
    **{name: nested("float32", 2) for name in _RECORDINGS},
    "Filename": value("string"),
    "Patient ID": value("string"),
    # not of the toolkit
    "Session": value("string"),
    "Site": value("string"),
    "Repetition Time": value("float32"),
    "Parcels without data": nested("string", 1),
}
COORDINATE_FEATURES: dict[str, Feature] = {
    name: value("float32") for name in ("Index", "X", "Y", "Z")
}


@dataclass
class Extremes:
    """Smallest and largest value of each parcel over the recordings of the training part."""

    smallest: NDArray[np.float64]
    largest: NDArray[np.float64]

    @classmethod
    def over(cls, series: Iterable[NDArray[np.float64]], n_parcels: int) -> "Extremes":
        """Find them, one recording (T, P) at a time; parcels without data count as 0."""
        found = cls(np.full(n_parcels, np.inf), np.full(n_parcels, -np.inf))
        for values in series:
            filled = np.nan_to_num(values)
            np.minimum(found.smallest, filled.min(axis=0), out=found.smallest)
            np.maximum(found.largest, filled.max(axis=0), out=found.largest)
        return found


def toolkit_row(
    row: Row, robust: NDArray[np.float64], extremes: Extremes, variables: Mapping[str, Any]
) -> dict[str, Any]:
    """A row of the toolkit's data set.

    Parameters
    ----------
    row
        Of the denoised series, at the repetition time of the model.
    robust
        (T, P) the robustly scaled series.
    extremes
        Of the training recordings.
    variables
        Further columns.

    Returns
    -------
    dict
        Recordings are (P, T) but for the robustly scaled one, which is (T, P), as in the toolkit.
        Parcels without data are 0, as there, and named in a column of their own.
    """
    raw = np.nan_to_num(row.series)
    centred = raw - raw.mean(axis=0)
    low, high = extremes.smallest, extremes.largest
    own_low, own_high = raw.min(axis=0), raw.max(axis=0)
    series = {
        "Raw_Recording": raw,
        "All_Patient_All_Voxel_Normalized_Recording": _to_unit(raw, low.min(), high.max()),
        "Per_Patient_All_Voxel_Normalized_Recording": _to_unit(raw, raw.min(), raw.max()),
        "Per_Patient_Per_Voxel_Normalized_Recording": _to_unit(raw, own_low, own_high),
        "Per_Voxel_All_Patient_Normalized_Recording": _to_unit(raw, low, high),
        "Subtract_Mean_Normalized_Recording": centred,
        "Subtract_Mean_Divide_Global_STD_Normalized_Recording": centred / GLOBAL_SD,
        "Subtract_Mean_Divide_Global_99thPercent_Normalized_Recording": centred
        / GLOBAL_99TH_PERCENTILE,
    }
    missing = [name for name, gone in zip(row.parcels, row.missing, strict=True) if gone]
    return {
        **{name: values.T.astype(np.float32) for name, values in series.items()},
        "Voxelwise_RobustScaler_Normalized_Recording": np.nan_to_num(robust).astype(np.float32),
        "Filename": f"{row.name}.dat",
        "Patient ID": row.participant,
        "Session": row.session,
        "Site": row.site,
        "Repetition Time": row.tr,
        "Parcels without data": missing,
        **variables,
    }


def _to_unit(values: NDArray[np.float64], low: Any, high: Any) -> NDArray[np.float64]:
    """Values between 0 and 1; where low and high are the same they stay as they are."""
    width = np.asarray(high - low)
    scaled = (values - low) / np.where(width > 0, width, 1.0)
    return np.where(width > 0, scaled, values)
