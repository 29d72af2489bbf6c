"""All recordings in one file that windows are read from: writing it, and building it where needed.

What the folder holds, and how it is read: `mapped_store`.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.bids.dataset import ignore
from brainlm_bids.bids.names import in_words
from brainlm_bids.bids.recordings import Recording
from brainlm_bids.errors import UserError
from brainlm_bids.files import file_sha256, read_json, sha256, write_json, write_tsv
from brainlm_bids.locks import locked
from brainlm_bids.messages import tell
from brainlm_bids.progress import SPACING, Progress
from brainlm_bids.temporary import sweep, temporary_folder
from brainlm_bids.training.mapped_store import (
    COLUMNS,
    DTYPE,
    FORMAT,
    TIMES,
    Array,
    Store,
    Stored,
    is_store,
    open_store,
    verify,
)
from brainlm_bids.training.recordings import (
    Example,
    check_series,
    find_series,
    read_all,
    series_example,
    volumes_example,
    volumes_file,
)

__all__ = ["Store", "Stored", "find_or_build", "is_store", "open_store", "verify", "write_store"]

FOLDER = "training_store"  # in the output folder


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
        Name, subject and series (T, P) of each, see `Example`. Without a repetition time it is
        taken to be at the rate of the model as the scanner measured it.
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
    try:
        with temporary_folder(folder.parent, folder.name) as work:
            _write_into(work, recordings, fingerprint)
            _put_in_place(work, folder)
    except OSError as error:
        raise UserError(f"{folder}: the store cannot be written ({error})") from error
    return open_store(folder)


def _write_into(work: Path, recordings: Iterable[Any], fingerprint: str) -> None:
    n_parcels, rows = _write_rows(work / "series.f32", recordings)
    columns = [[getattr(row, key) for row in rows] for key in Stored.__dataclass_fields__]
    columns[5] = [reason or None for reason in columns[5]]
    names = [*COLUMNS, *TIMES] if any(row.tr for row in rows) else [*COLUMNS]
    write_tsv(work / "recordings.tsv", names, columns[: len(names)])
    table = file_sha256(work / "recordings.tsv")
    about = {"Format": FORMAT, "Parcels": n_parcels, "DataType": DTYPE, "Table": table}
    write_json(work / "store.json", {**about, "Sources": fingerprint})


def _write_rows(file: Path, recordings: Iterable[Any]) -> tuple[int, list[Stored]]:
    rows: list[Stored] = []
    n_parcels = first = 0
    with file.open("wb") as stream:
        for item in recordings:
            example = Example(*item)
            name, subject, series, reason = example[:4]
            if series is None:
                rows.append(Stored(name, subject, 0, first, "", reason))
                continue
            if example.tr is None:
                check_series(np.asarray(series), name)
            n_parcels = n_parcels or series.shape[1]
            if series.shape[1] != n_parcels:
                raise UserError(
                    f"{name}: has {series.shape[1]} parcels, the recordings before it {n_parcels}"
                )
            digest = _append(stream, np.asarray(series))
            place = len(series), first, digest
            rows.append(Stored(name, subject, *place, "", example.tr, example.model_tr))
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
    with temporary_folder(folder.parent, "old") as place:
        if folder.exists():
            folder.rename(place / "store")
        work.rename(folder)


def find_or_build(
    data: Path,
    run_dir: Path,
    *,
    series: str = "robust",
    space: str | None = None,
    atlas: str | None = None,
    volumes: bool = False,
    check: bool = True,
    report: Callable[[str], None] = tell,
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
    volumes
        Store the volumes of the scanner (see `recordings.read_volumes`), not the scaled series.
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
    if not data.is_dir():
        raise UserError(f"{data}: no such folder; give an output folder of brainlm-bids or a store")
    if is_store(data):
        store = open_store(data)
        if check:
            verify(store)
        if not volumes and any(one.tr for one in store.recordings):
            raise UserError(
                f"{data}: holds volumes of the scanner, for --future; give the output folder"
            )
        return store
    sources = find_series(data, series=series, space=space, atlas=atlas)
    parent = (data if os.access(data, os.W_OK) else run_dir) / FOLDER
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / f"desc-{series}{'volumes' if volumes else ''}"
    with locked(parent / ".lock", -1):
        sweep(parent)
        return _open_or_build(folder, sources, data, volumes, check, report)


def _open_or_build(
    folder: Path,
    sources: Sequence[Recording],
    data: Path,
    volumes: bool,
    check: bool,
    report: Callable[[str], None],
) -> Store:
    read = volumes_example if volumes else series_example
    fingerprint = _fingerprint(sources, volumes)
    try:
        store = open_store(folder)
        if read_json(folder / "store.json")["Sources"] == fingerprint:
            if check:
                verify(store)
            return store
    except UserError as error:
        if folder.exists():
            report(f"{error}: this is done now")
    if folder.is_relative_to(data):
        ignore(data, [f"{FOLDER}"])
    report(f"reading {len(sources)} series of {data} into {folder}")
    with Progress("recording", spacing=SPACING) as progress:
        items = progress.each(sources, lambda one: f"{in_words(one.stem)}: reading")
        return write_store(folder, read_all(items, read), fingerprint=fingerprint)


def _fingerprint(sources: Sequence[Recording], volumes: bool) -> str:
    states = []
    for recording in sources:
        status = (volumes_file(recording) if volumes else recording.path).stat()
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
