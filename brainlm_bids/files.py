"""The only place where tables, sidecars and checksums are read and written.


A file is there whole or not at all: it is written beside its place and renamed.
"""

import contextlib
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# Significant digits in TSV files: those of a float32, of which every series is made.
DIGITS = 7


@contextlib.contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """Give a path to write to; it takes the place of `path` when the block ends well.

    The temporary name keeps the extensions (libraries go by them) and lies in the same folder, so
    that the rename is atomic.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-", suffix=f"-{path.name}")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # mkstemp makes files that only their owner reads; the others of the lab read these too
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def write_text(path: Path, text: str) -> Path:
    """Write a text file whole."""
    with atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, values: Mapping[str, Any]) -> Path:
    """Write a sidecar; NaN becomes null, since JSON has no NaN."""
    text = json.dumps(json_value(values), indent=2, ensure_ascii=False, allow_nan=False)
    return write_text(path, text + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a sidecar."""
    return dict(json.loads(path.read_text()))


def json_value(value: Any) -> Any:
    """A value as JSON reads it back: lists, dictionaries, and None for NaN."""
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_tsv(path: Path, names: Sequence[str], columns: Sequence[Sequence[Any]]) -> Path:
    """Write columns as TSV: numbers with 7 significant digits, missing values as n/a."""
    cells = [[_cell(value) for value in column] for column in columns]
    lengths = {len(column) for column in cells}
    if len(names) != len(cells) or len(lengths) > 1:
        raise ValueError(f"{path.name}: {len(names)} names, columns of lengths {sorted(lengths)}")
    lines = ["\t".join(names), *("\t".join(row) for row in zip(*cells, strict=True))]
    return write_text(path, "\n".join(lines) + "\n")


def write_series(path: Path, names: Sequence[str], series: Any) -> Path:
    """Write a (T, P) array as TSV with one column per parcel."""
    import numpy as np

    values = np.asarray(series, dtype=np.float64)
    return write_tsv(path, names, list(values.T.tolist()))


def _cell(value: Any) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, float) or type(value).__name__.startswith("float"):
        return f"{value:.{DIGITS}g}" if math.isfinite(value) else "n/a"
    return str(value).replace("\t", " ").replace("\n", " ")


def read_tsv(path: Path) -> tuple[list[str], Any]:
    """Read a TSV of numbers: names and an array (rows, columns) with NaN for n/a.

    Raises ValueError if a cell is no number, or if rows differ in length (a file cut short).
    """
    import io

    import numpy as np
    import pandas as pd

    content = path.read_bytes()
    names = content.split(b"\n", 1)[0].decode().rstrip("\r").split("\t")
    # five times as fast as float() cell by cell, with the same result
    table = pd.read_csv(
        io.BytesIO(content),
        sep="\t",
        header=None,
        skiprows=1,
        names=range(len(names)),
        index_col=False,
        dtype=np.float64,
        keep_default_na=False,
        na_values=["n/a", ""],
    )
    # pandas fills what is missing at the end of a row with NaN
    if content.count(b"\t") != (len(table) + 1) * (len(names) - 1):
        raise ValueError(f"{path.name}: rows of different lengths; was the file cut short?")
    return names, table.to_numpy()


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a TSV of anything: a dictionary of texts per row. Raises ValueError for other files."""
    import csv

    with path.open(encoding="utf-8-sig", newline="") as handle:
        rows = csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE)
        table = list(rows)
    if any(None in row or None in row.values() for row in table):
        raise ValueError(f"{path.name}: rows of different lengths")
    return table


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
