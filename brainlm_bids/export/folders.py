"""A file per recording: arrays of numpy, or CSV."""

from pathlib import Path

import numpy as np

from brainlm_bids.export.rows import Row, standardised
from brainlm_bids.files import atomically


def write_npz(folder: Path, row: Row) -> Path:
    """Write a recording as `<name>.npz`.

    Its arrays: `bold` (T, P) float32 in the units of the series, NaN in parcels without data;
    `mean`, `std` (P,); `tr` in s; `parcels`, the names of the columns.
    """
    _, mean, sd = standardised(row.series)
    path = folder / row.part / f"{row.name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomically(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            bold=row.series.astype(np.float32),
            mean=mean[0],
            std=sd[0],
            tr=np.float64(row.tr),
            parcels=np.array(row.parcels),
        )
    return path


def write_csv(folder: Path, row: Row) -> Path:
    """Write a recording as `<name>.csv`: a column per parcel, empty if it has no data."""
    import pandas as pd

    path = folder / row.part / f"{row.name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(row.series.astype(np.float32), columns=list(row.parcels))
    with atomically(path) as temporary:
        table.to_csv(temporary, index=False)
    return path
