"""The only place where text files are read and written: tables, sidecars, pages; and checksums.

A file appears whole or not at all: it is written beside its place and renamed. A file that cannot
be read is reported in one line that names it.
"""

import codecs
import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainlm_bids.annex import how_to_get, is_absent
from brainlm_bids.bounds import (
    LARGEST_JSON,
    LARGEST_TABLE,
    check_columns,
    check_json_size,
    check_regular,
    content_of,
)
from brainlm_bids.errors import UserError
from brainlm_bids.system_errors import (
    CANNOT_READ,
    CANNOT_WRITE,
    name_written,
    put_in_place,
    refusal,
)
from brainlm_bids.temporary import temporary_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

# What the package itself holds.
DATA = Path(__file__).parent / "data"
# Significant digits in TSV files: those of a float32, of which every series is made.
DIGITS = 7


@contextlib.contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """Give a path to write to; it takes the place of `path` when the block ends well.

    The temporary name keeps the extensions (libraries use them) and is in the same folder, so
    that the rename is atomic.
    """
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(path.parent, path.name) as temporary:
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            # mkstemp makes files that only their owner reads; the others of the lab read these too
            temporary.chmod(0o666 & ~_umask())
            put_in_place(temporary, path)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Add the name of the file to errors of the disk, which libraries tell in ways of their own."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            _raise_refusal(path, error)
        if error.errno in CANNOT_WRITE:
            name_written(error, path)
        raise
    except UserError:
        raise
    except Exception as error:  # those of torch, ITK or safetensors
        _raise_refusal(path, error)
        raise


def _raise_refusal(path: Path, error: Exception) -> None:
    """Raise the error of the disk that may be the cause of another one."""
    cause = refusal(path.parent) if path.parent.is_dir() else None
    if cause is not None:
        cause.filename = str(path)
        raise cause from error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


# --- writing ---------------------------------------------------------------------------------


def write_text(path: Path, text: str) -> Path:
    """Write a text file whole, as UTF-8; returns its path."""
    with atomically(path) as temporary:
        # names of files need not be Unicode
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path


def write_json(path: Path, values: Mapping[str, object]) -> Path:
    """Write a JSON file; NaN becomes null, since JSON has no NaN. Returns its path."""
    text = json.dumps(json_value(values), indent=2, ensure_ascii=False, allow_nan=False)
    return write_text(path, text + "\n")


def json_value(value: object) -> Any:
    """A value as JSON reads it back: lists, dictionaries, and None for NaN.

    >>> json_value({"r": float("nan"), "shape": (2, 3), "file": Path("a")})
    {'r': None, 'shape': [2, 3], 'file': 'a'}
    """
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


def write_tsv(
    path: Path, names: Sequence[str], columns: Iterable[Iterable[object]], *, digits: int = DIGITS
) -> Path:
    """Write columns as TSV; returns its path.

    Parameters
    ----------
    path
        Where.
    names, columns
        Of equal length. None and what is not finite become n/a.
    digits
        Significant digits of floats.

    Raises
    ------
    ValueError
        For columns of different lengths.
    """
    cells = [_cells(column, digits) for column in columns]
    lengths = {len(column) for column in cells}
    if len(names) != len(cells) or len(lengths) > 1:
        raise ValueError(f"{path.name}: {len(names)} names, columns of lengths {sorted(lengths)}")
    lines = ["\t".join(names), *("\t".join(row) for row in zip(*cells, strict=True))]
    return write_text(path, "\n".join(lines) + "\n")


def write_series(path: Path, names: Sequence[str], series: "ArrayLike") -> Path:
    """Write a (T, P) array as TSV with one column per parcel; returns its path."""
    import numpy as np

    values = np.asarray(series, dtype=np.float64)
    return write_tsv(path, names, values.T.tolist())


def write_matrix(path: Path, names: Sequence[str], matrix: "ArrayLike") -> Path:
    """Write a (P, P) array as TSV whose first column, `name`, has the names of the rows."""
    import numpy as np

    values = np.asarray(matrix, dtype=np.float64)
    return write_tsv(path, ["name", *names], [names, *values.T.tolist()])


def _cells(column: Iterable[object], digits: int) -> list[str]:
    values = list(column)
    if set(map(type, values)) != {float}:
        return [_cell(value, digits) for value in values]
    # all numbers of a column at once: series and matrices are nothing else
    texts = (f"%.{digits}g\n" * len(values) % tuple(values)).splitlines()
    if "n" not in "".join(texts):
        return texts
    return ["n/a" if text.endswith(("nan", "inf")) else text for text in texts]


def _cell(value: Any, digits: int) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, float) or type(value).__name__.startswith("float"):
        return f"{value:.{digits}g}" if math.isfinite(value) else "n/a"
    return str(value).replace("\t", " ").replace("\n", " ")


# --- reading ---------------------------------------------------------------------------------


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Report any problem with a file in one line that names it and the remedy.

    The block reads that file and does nothing else. Libraries raise errors of any kind for a
    damaged file.

    Raises
    ------
    UserError
        For every error in the block but a lack of memory.
    """
    try:
        yield
    except (UserError, MemoryError):  # a lack of memory is no fault of the file
        raise
    except Exception as error:
        raise UserError(f"{path}: {why_unreadable(path, error)}") from error


def why_unreadable(path: Path, error: BaseException) -> str:
    """What is wrong with a file that could not be read, and what to do, in one line."""
    if is_absent(path):
        return how_to_get(path)
    if path.is_symlink() and not path.exists():
        return f"is a link to {path.readlink()}, which is not there; fetch or copy the file"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, PermissionError):
        return f"cannot be read by user {os.getuid()}; change its permissions"
    if path.is_dir():
        return "is a folder, not a file"
    with contextlib.suppress(OSError):
        found = _placeholder(path)
        if found is not None:
            return found
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    remedy = "is it damaged or incomplete?"
    if isinstance(error, OSError):
        remedy = CANNOT_READ.get(error.errno or 0, remedy)
    return f"cannot be read ({' '.join(str(why).split())}); {remedy}"


def _placeholder(path: Path) -> str | None:
    """Describe the placeholder of a file that has never been fetched."""
    with path.open("rb") as handle:
        start = handle.read(40)
    if not start:
        return "is empty (0 bytes); fetch or copy it again"
    if start.startswith(b"/annex/objects/") and is_absent(path):
        return how_to_get(path)
    if start.startswith(b"version https://git-lfs"):
        return "has not been fetched (it is a pointer of Git LFS); get it with `git lfs pull`"
    return None


def check_readable(path: Path) -> None:
    """Raise UserError if a file is not there, not a file, empty, or was never fetched."""
    with reading(path):
        check_regular(path)
        if _placeholder(path) is not None:
            raise EOFError


def read_bytes(path: Path, largest: int = LARGEST_TABLE) -> bytes:
    """The content of a file. Raises UserError if it cannot be read, or has more bytes."""
    with reading(path):
        return content_of(path, largest)


def read_text(path: Path, largest: int = LARGEST_TABLE) -> str:
    """The text of a UTF-8 file, or of a UTF-16 one that says so, without a byte-order mark.

    Raises
    ------
    UserError
        If there is no such file, or it is neither, or has more bytes than `largest`.
    """
    return _decode(path, read_bytes(path, largest))


def _decode(path: Path, content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # Excel's "Unicode text"
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError:
            raise UserError(f"{path}: is damaged UTF-16 text; save it as UTF-8") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: is not UTF-8 text (byte {error.start + 1} is 0x{content[error.start]:02x}); "
            "save it as UTF-8"
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, such as a sidecar. Raises UserError, naming the file, for anything else."""
    return parse_json(path, read_text(path, LARGEST_JSON))


def parse_json(path: Path, text: str) -> dict[str, Any]:
    """A JSON object, of the text of a file that errors name. Raises UserError, as `read_json`."""
    check_json_size(path, text)
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{path}: is not valid JSON ({place}: {error.msg})") from None
    except RecursionError:
        raise UserError(f"{path}: is not valid JSON (nested too deeply)") from None
    except ValueError as error:  # a number of thousands of digits
        raise UserError(f"{path}: is not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds no JSON object")
    return values


def read_tsv(path: Path) -> "tuple[list[str], NDArray[np.float64]]":
    """A TSV of numbers.

    Returns
    -------
    names : list of str
        Of the columns.
    values : (rows, columns) float64
        NaN for n/a and empty cells.

    Raises
    ------
    UserError
        If a cell is not a number, or rows differ in length, as in a file that was cut short.
    """
    return _numbers(path, _table(path), 0)


def read_matrix(path: Path) -> "tuple[list[str], NDArray[np.float64]]":
    """A square TSV of numbers, as `write_matrix` writes it; also one without a column of names.

    Returns
    -------
    names : list of str
        Of the columns.
    values : (P, P) float64
        NaN for n/a.

    Raises
    ------
    UserError
        If it is no such table, or its rows are not in the order of its columns.
    """
    content = _table(path)
    first = [line.split(b"\t", 1)[0] for line in content.splitlines()]
    with_names = first[:1] == [b"name"]
    names, values = _numbers(path, content, int(with_names))
    if values.shape[0] != values.shape[1]:
        raise UserError(f"{path}: is not a square matrix, its shape is {values.shape}")
    if with_names and first[1:] != [name.encode() for name in names]:
        raise UserError(f"{path}: its rows are not in the order of its columns")
    return names, values


def _table(path: Path) -> bytes:
    content = read_bytes(path)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _decode(path, content).encode()
    return content.removeprefix(codecs.BOM_UTF8)


def _numbers(path: Path, content: bytes, n_text: int) -> "tuple[list[str], NDArray[np.float64]]":
    """Names and values of a table, without its first `n_text` columns."""
    import io

    import numpy as np
    import pandas as pd

    check_columns(path, content)
    header = _decode(path, content.split(b"\n", 1)[0]).rstrip("\r").split("\t")
    if header == [""]:
        raise UserError(f"{path}: is not a table of numbers (its first line is empty)")
    try:
        # five times as fast as float() cell by cell, with the same result
        table = pd.read_csv(
            io.BytesIO(content),
            sep="\t",
            header=None,
            skiprows=1,
            names=range(len(header)),
            index_col=False,
            usecols=range(n_text, len(header)),
            dtype=np.float64,
            keep_default_na=False,
            na_values=["n/a", ""],
        )
    except ValueError as error:  # pandas' own errors are of this kind, too
        first = (str(error).strip().splitlines() or [""])[0]
        raise UserError(f"{path}: is not a table of numbers ({first})") from None
    # pandas fills what is missing at the end of a row with NaN
    if content.count(b"\t") != (len(table) + 1) * (len(header) - 1):
        raise UserError(f"{path}: rows of different lengths; was the file cut short?")
    return header[n_text:], table.to_numpy()


def read_rows(path: Path) -> list[dict[str, str]]:
    """A TSV of anything: a dictionary of texts per row.

    Raises
    ------
    UserError
        If the file cannot be read, or rows differ in length.
    """
    import csv
    import io

    content = _table(path)
    check_columns(path, content)
    text = _decode(path, content)
    with reading(path):  # a cell may be longer than the reader of the library allows
        lines = io.StringIO(text, newline="")
        table = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    if any(None in row or None in row.values() for row in table):
        raise UserError(f"{path}: rows of different lengths; was the file cut short?")
    return table


# --- checksums -------------------------------------------------------------------------------


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits. Raises UserError, naming it."""
    with reading(path), path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256(*contents: Any) -> str:
    """SHA-256 of texts, bytes and arrays, one after another.

    >>> sha256("a", b"b")[:8] == sha256("ab")[:8]
    True
    """
    digest = hashlib.sha256()
    for content in contents:
        content = content.encode() if isinstance(content, str) else content
        digest.update(content.tobytes() if hasattr(content, "tobytes") else content)
    return digest.hexdigest()
