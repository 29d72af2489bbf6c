"""All recordings in one file that windows are read from: series (T, P) come in, views go out.

A store is a folder: `series.f32`, the volumes of all recordings in turn as little-endian
float32 (volumes, P); `recordings.tsv`, where each begins and the sha256 of its bytes; `store.json`.
It is mapped into memory, so a window is one read of 200 · P · 4 contiguous bytes.
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
    """One row: a recording of `n_volumes` from `first_volume` on; `reason`: why it has none."""

    name: str
    subject: str
    n_volumes: int
    first_volume: int
    sha256: str
    reason: str = ""


@dataclass(frozen=True)
class Store:
    """An open store. sha256: of its table, and so of every recording's name and values."""

    folder: Path
    recordings: tuple[Stored, ...]
    values: NDArray[np.float32]  # (volumes, P), mapped
    sha256: str

    @property
    def n_parcels(self) -> int:
        """Number of parcels of each volume."""
        return int(self.values.shape[1])

    def series(self, index: int) -> Array:
        """(T, P) of a recording: a view, nothing is read yet."""
        recording = self.recordings[index]
        return self.values[recording.first_volume : recording.first_volume + recording.n_volumes]

    def __reduce__(self) -> tuple[Any, ...]:
        # A process that reads windows maps the file itself; pickle would copy the volumes.
        return open_store, (self.folder,)


def write_store(
    folder: Path,
    recordings: Iterable[Example | tuple[str, str, Array]],
    *,
    fingerprint: str = "",
) -> Store:
    """Store recordings (name, subject, series (T, P)); what is in `folder` is replaced at the end.

    fingerprint: says what the recordings were made from. Raises UserError for series of unequal
    width, equal names or values that are not finite, and where there is no room.
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
                    f"{name}: has {series.shape[1]} parcels, those before have {n_parcels}"
                )
            digest = _append(stream, np.asarray(series))
            rows.append(Stored(name, subject, len(series), first, digest))
            first += len(series)
        stream.flush()
        os.fsync(stream.fileno())
    name, times = Counter(row.name for row in rows).most_common(1)[0] if rows else ("", 0)
    if times > 1:
        raise UserError(f"{name}: two recordings of this name")
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
    """Whether a folder is a store."""
    return (folder / "store.json").is_file()


def open_store(folder: Path) -> Store:
    """Map a store. Raises UserError, naming the file, for one that is not whole."""
    try:
        about = read_json(folder / "store.json")
        table = file_sha256(folder / "recordings.tsv")
        rows = read_rows(folder / "recordings.tsv")
        n_parcels, expected = int(about["Parcels"]), str(about["Table"])
        size = (folder / "series.f32").stat().st_size
        recordings = tuple(_stored(row) for row in rows)
    except (OSError, UserError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: is no store, or not whole ({error}); {_AGAIN}") from None
    if about.get("Format") != FORMAT:
        raise UserError(f"{folder}: was written by another version of brainlm-bids; {_AGAIN}")
    if table != expected:
        raise UserError(f"{folder / 'recordings.tsv'}: is not as it was written; {_AGAIN}")
    n_volumes = sum(row.n_volumes for row in recordings)
    if size != n_volumes * n_parcels * 4:
        raise UserError(f"{folder / 'series.f32'}: has {size} bytes, cut short; {_AGAIN}")
    shape = (n_volumes, n_parcels)
    values = np.memmap(folder / "series.f32", dtype=DTYPE, mode="r", shape=shape)
    return Store(folder, recordings, values, expected)


_AGAIN = "delete the folder and build it again"


def _stored(row: dict[str, str]) -> Stored:
    missing = {key: "" if row[key] == "n/a" else row[key] for key in COLUMNS}
    return Stored(
        missing["name"],
        missing["participant_id"],
        int(missing["n_volumes"]),
        int(missing["first_volume"]),
        missing["sha256"],
        missing["reason"],
    )


def verify(store: Store) -> None:
    """Compare every recording with its sha256. Raises UserError that names those that differ."""
    bad = [
        recording.name
        for index, recording in enumerate(store.recordings)
        if not recording.reason and sha256(store.series(index)) != recording.sha256
    ]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise UserError(
            f"{store.folder}: {', '.join(bad[:3])}{more}: not as written (sha256 differs); {_AGAIN}"
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
    """The store `data`, or that of the output folder `data`, built where needed.

    It lies in the output folder, or in `run_dir` if that folder cannot be written to. It is built
    anew when a series, its size, its time or its record changed. Processes take turns. `check`:
    compare all values with their sha256; one process of a machine is enough.
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
    above = (data if os.access(data, os.W_OK) else run_dir) / FOLDER
    above.mkdir(parents=True, exist_ok=True)
    with FileLock(above / ".lock"):
        return _open_or_build(above / f"desc-{series}", sources, data, check, report)


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
            report(f"{error}: done now")
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
