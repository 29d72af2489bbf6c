"""An open store: the recordings that windows are read from, mapped into memory.

A store is a folder: `series.f32` holds the volumes of all recordings in turn, as little-endian
float32 (volumes, P); `recordings.tsv` gives the first volume of each and the sha256 of its bytes;
`store.json` describes it. Reading a window reads 200 · P · 4 contiguous bytes. Recordings are
scaled series at the rate of the model or, where the table gives a repetition time, volumes of the
scanner, in which missing ones are NaN.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.errors import UserError
from brainlm_bids.files import file_sha256, read_json, read_rows, sha256

FORMAT = 1
DTYPE = "<f4"
COLUMNS = ("name", "participant_id", "n_volumes", "first_volume", "sha256", "reason")
TIMES = ("repetition_time", "model_repetition_time")
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Stored:
    """One row of the table: a recording.

    Attributes
    ----------
    name, subject
        `sub-01_ses-1_task-rest`, `sub-01`.
    n_volumes, first_volume
        Its part of the file.
    sha256
        Checksum of its values.
    reason
        Why it has no volumes; empty if it has.
    tr, model_tr
        Repetition times of the scanner and of the model, s; None for a scaled series at the rate
        of the model.
    """

    name: str
    subject: str
    n_volumes: int
    first_volume: int
    sha256: str
    reason: str = ""
    tr: float | None = None
    model_tr: float | None = None


@dataclass(frozen=True)
class Store:
    """An open store.

    Attributes
    ----------
    folder
        Its folder.
    recordings
        Its table.
    values
        (volumes, P), mapped into memory.
    sha256
        Checksum of the table, and so of every recording's name and values.
    """

    folder: Path
    recordings: tuple[Stored, ...]
    values: NDArray[np.float32]  # (volumes, P), mapped
    sha256: str

    @property
    def n_parcels(self) -> int:
        """Number of parcels of each volume."""
        return int(self.values.shape[1])

    def series(self, index: int) -> Array:
        """Return the series of a recording.

        Parameters
        ----------
        index
            Row of the table.

        Returns
        -------
        ndarray
            (T, P), a view: nothing is read yet.
        """
        recording = self.recordings[index]
        return self.values[recording.first_volume : recording.first_volume + recording.n_volumes]

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process maps the file itself; pickling the array would copy the volumes.
        return open_store, (self.folder,)


def is_store(folder: Path) -> bool:
    """Whether a folder is a store.

    Parameters
    ----------
    folder
        The folder.

    Returns
    -------
    bool
        True if it has a `store.json`.
    """
    return (folder / "store.json").is_file()


def open_store(folder: Path) -> Store:
    """Map a store into memory.

    Parameters
    ----------
    folder
        Folder of the store.

    Returns
    -------
    Store
        The store, open.

    Raises
    ------
    UserError
        If the store is incomplete; the message names the file.
    """
    try:
        about = read_json(folder / "store.json")
        table = file_sha256(folder / "recordings.tsv")
        rows = read_rows(folder / "recordings.tsv")
        n_parcels, expected = int(about["Parcels"]), str(about["Table"])
        size = (folder / "series.f32").stat().st_size
        recordings = tuple(_stored(row) for row in rows)
    except (OSError, UserError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: is not a store, or incomplete ({error}); {_AGAIN}") from None
    if about.get("Format") != FORMAT:
        raise UserError(f"{folder}: was written by another version of brainlm-bids; {_AGAIN}")
    if table != expected:
        raise UserError(f"{folder / 'recordings.tsv'}: was changed after it was written; {_AGAIN}")
    n_volumes = sum(row.n_volumes for row in recordings)
    if size != n_volumes * n_parcels * 4:
        raise UserError(f"{folder / 'series.f32'}: is cut short ({size} bytes); {_AGAIN}")
    shape = (n_volumes, n_parcels)
    values = np.memmap(folder / "series.f32", dtype=DTYPE, mode="r", shape=shape)
    return Store(folder, recordings, values, expected)


_AGAIN = "delete the folder and build it again"


def _stored(row: dict[str, str]) -> Stored:
    values = {key: "" if row[key] == "n/a" else row[key] for key in COLUMNS}
    return Stored(
        values["name"],
        values["participant_id"],
        int(values["n_volumes"]),
        int(values["first_volume"]),
        values["sha256"],
        values["reason"],
        *(_time(row.get(key, "n/a")) for key in TIMES),
    )


def _time(text: str) -> float | None:
    return None if text == "n/a" else float(text)


def verify(store: Store) -> None:
    """Compare every recording with its checksum.

    Parameters
    ----------
    store
        The store.

    Raises
    ------
    UserError
        If some differ; the message names them.
    """
    bad = [
        recording.name
        for index, recording in enumerate(store.recordings)
        if not recording.reason and sha256(store.series(index)) != recording.sha256
    ]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise UserError(
            f"{store.folder}: {', '.join(bad[:3])}{more}: changed after writing (sha256 differs); "
            f"{_AGAIN}"
        )
