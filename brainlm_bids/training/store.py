"""All recordings in one file that windows are read from.

A store is a folder: `series.f32` holds the volumes of all recordings in turn, as little-endian
float32 (volumes, P); `recordings.tsv` gives the first volume of each and the sha256 of its bytes;
`store.json` describes it. The file is mapped into memory, so reading a window reads 200 · P · 4
contiguous bytes.
"""

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.bids.dataset import ignore
from brainlm_bids.bids.derivatives import Recording
from brainlm_bids.errors import UserError
from brainlm_bids.files import (
    file_sha256,
    read_json,
    read_rows,
    sha256,
    write_json,
    write_tsv,
)
from brainlm_bids.training.recordings import Example, check_series, find_series, read_all

FOLDER = "training_store"  # in the output folder
FORMAT = 1
DTYPE = "<f4"
COLUMNS = ("name", "participant_id", "n_volumes", "first_volume", "sha256", "reason")
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
    """

    name: str
    subject: str
    n_volumes: int
    first_volume: int
    sha256: str
    reason: str = ""


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


def write_store(
    folder: Path,
    recordings: Iterable[Example | tuple[str, str, Array]],
    *,
    fingerprint: str = "",
) -> Store:
    """Write a store; a store in the same folder is replaced at the end.

    Parameters
    ----------
    folder
        Folder of the store.
    recordings
        Name, subject and series (T, P) of each.
    fingerprint
        Identifies what the recordings were made from.

    Returns
    -------
    Store
        The store, open.

    Raises
    ------
    UserError
        For series with different numbers of parcels, equal names, values that are not finite, or a
        full disk.
    """
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".tmp-{folder.name}-"))
    try:
        n_parcels, rows = _write_rows(work / "series.f32", recordings)
        columns = [[getattr(row, key) for row in rows] for key in Stored.__dataclass_fields__]
        columns[-1] = [reason or None for reason in columns[-1]]
        write_tsv(work / "recordings.tsv", COLUMNS, columns)
        table = file_sha256(work / "recordings.tsv")
        about = {"Format": FORMAT, "Parcels": n_parcels, "DataType": DTYPE, "Table": table}
        write_json(work / "store.json", {**about, "Sources": fingerprint})
        _put_in_place(work, folder)
    except OSError as error:
        raise UserError(f"{folder}: the store cannot be written ({error})") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return open_store(folder)


def _write_rows(file: Path, recordings: Iterable[Any]) -> tuple[int, list[Stored]]:
    rows: list[Stored] = []
    n_parcels = first = 0
    with file.open("wb") as stream:
        for item in recordings:
            name, subject, series, reason = Example(*item)
            if series is None:
                rows.append(Stored(name, subject, 0, first, "", reason))
                continue
            check_series(np.asarray(series), name)
            n_parcels = n_parcels or series.shape[1]
            if series.shape[1] != n_parcels:
                raise UserError(
                    f"{name}: has {series.shape[1]} parcels, the recordings before it {n_parcels}"
                )
            digest = _append(stream, np.asarray(series))
            rows.append(Stored(name, subject, len(series), first, digest))
            first += len(series)
        stream.flush()
        os.fsync(stream.fileno())
    name, times = Counter(row.name for row in rows).most_common(1)[0] if rows else ("", 0)
    if times > 1:
        raise UserError(f"{name}: two recordings have this name")
    if not first:
        raise UserError(
            f"none of the {len(rows)} recordings can be used; the first: "
            f"{rows[0].reason if rows else 'there is none'}"
        )
    return n_parcels, rows


def _append(stream: IO[bytes], series: NDArray[np.floating]) -> str:
    data = np.ascontiguousarray(series, dtype=DTYPE)
    stream.write(data.data)
    return sha256(data)


def _put_in_place(work: Path, folder: Path) -> None:
    work.chmod(0o755)
    old = folder.with_name(f".old-{work.name}")
    if folder.exists():
        folder.rename(old)
    work.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


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
    )


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


def find_or_build(
    data: Path,
    run_dir: Path,
    *,
    series: str = "robust",
    space: str | None = None,
    atlas: str | None = None,
    check: bool = True,
    report: Callable[[str], None] = print,
) -> Store:
    """Open the store of an output folder; build it where needed.

    The store lies in the output folder, or in `run_dir` if that folder is read-only. It is built
    again when the series, or their sizes, times or records, have changed. Processes take turns.

    Parameters
    ----------
    data
        An output folder of brainlm-bids, or a store.
    run_dir
        The run folder.
    series, space, atlas
        See `recordings.find_series`.
    check
        Whether to compare all values with their checksums; one process of a machine is enough.
    report
        Receives messages.

    Returns
    -------
    Store
        The store, open.

    Raises
    ------
    UserError
        If there are no usable data.
    """
    from filelock import FileLock

    if not data.is_dir():
        raise UserError(f"{data}: no such folder; give an output folder of brainlm-bids or a store")
    if is_store(data):
        store = open_store(data)
        if check:
            verify(store)
        return store
    sources = find_series(data, series=series, space=space, atlas=atlas)
    parent = (data if os.access(data, os.W_OK) else run_dir) / FOLDER
    parent.mkdir(parents=True, exist_ok=True)
    with FileLock(parent / ".lock"):
        return _open_or_build(parent / f"desc-{series}", sources, data, check, report)


def _open_or_build(
    folder: Path,
    sources: Sequence[Recording],
    data: Path,
    check: bool,
    report: Callable[[str], None],
) -> Store:
    fingerprint = _fingerprint(sources)
    try:
        store = open_store(folder)
        if read_json(folder / "store.json")["Sources"] == fingerprint:
            if check:
                verify(store)
            return store
    except UserError as error:
        if folder.exists():
            report(f"{error}: this is done now")
    from tqdm import tqdm

    if folder.is_relative_to(data):
        ignore(data, [f"{FOLDER}"])
    report(f"reading {len(sources)} series of {data} into {folder}")
    progress = tqdm(sources, desc="store", unit="recording", disable=None)
    return write_store(folder, read_all(progress), fingerprint=fingerprint)


def _fingerprint(sources: Sequence[Recording]) -> str:
    states = []
    for recording in sources:
        status = recording.path.stat()
        states.append(
            [
                recording.stem,
                recording.configuration,
                recording.reason,
                status.st_size,
                status.st_mtime_ns,
            ]
        )
    return sha256(json.dumps(states))
