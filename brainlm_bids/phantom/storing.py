"""Writes images, arrays and tables of the phantom; the same content gives the same bytes."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np

from brainlm_bids import files


def write_nifti(path: Path, header: Any, volumes: Any, dtype: str = "<i2") -> None:
    """Write volumes one after another: no more than one of them is in memory.

    dtype: "<i2", to whose range values are clipped, or "<f4".
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    header.set_data_dtype(np.dtype(dtype))
    header.set_slope_inter(1, 0)
    header.set_xyzt_units("mm", "sec")
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 3, raw, mtime=0) as file:
        file.write(header.binaryblock + b"\0" * 4)
        for volume in volumes:
            clipped = np.clip(volume, -32768, 32767) if dtype == "<i2" else volume
            file.write(clipped.astype(dtype).tobytes(order="F"))


def write_npz(path: Path, **arrays: Any) -> None:
    """Write arrays by name, compressed."""
    with files.atomically(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def write_tsv(path: Path, table: np.ndarray, columns: list[str]) -> None:
    """Write a table (rows, columns)."""
    files.write_tsv(path, columns, table.T.tolist(), digits=8)
