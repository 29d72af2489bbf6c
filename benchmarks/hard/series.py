"""Series that were made elsewhere, as people's programs and spreadsheets write them."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.hard.benign import (
    ATLAS,
    SERIES_VOLUMES,
    add_series,
    lines,
    names,
    series,
    series_dataset,
)
from benchmarks.hard.case import REFUSED, RIGHT, WARNED, Batch, Case

Array = NDArray[np.float64]


def _text(label: str, content: Callable[[], bytes], ending: str = ".tsv") -> Callable[[Path], None]:
    return lambda folder: add_series(folder, label, content(), ending) and None


def _table(
    label: str,
    change: Callable[[Array], Array] = lambda data: data,
    *,
    header: Callable[[], list[str]] = lambda: list(names()),
    ending: str = ".tsv",
    separator: str = "\t",
    around: Callable[[bytes], bytes] = lambda content: content,
) -> Callable[[Path], None]:
    """The benign series with a change, as text."""
    return _text(label, lambda: around(lines(header(), change(series()), separator)), ending)


def _npy(label: str, change: Callable[[Array], Array]) -> Callable[[Path], None]:
    def content() -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, change(series()))
        return buffer.getvalue()

    return _text(label, content, ".npy")


def _shuffled(data: Array) -> Array:
    return data[:, _ORDER]


_ORDER = np.random.default_rng(9).permutation(424)


def _rows(value: float, *, first: int = 100) -> Callable[[Array], Array]:
    def change(data: Array) -> Array:
        data[first : first + 10] = value
        return data

    return change


def _column(value: float) -> Callable[[Array], Array]:
    def change(data: Array) -> Array:
        data[:, 7] = value
        return data

    return change


def _with_index(data: Array) -> Array:
    return np.column_stack([np.arange(len(data)), data])


def _few(data: Array) -> Array:
    return data[:, :400]


def _short(data: Array) -> Array:
    return data[:12]


def _blank_rows(content: bytes) -> bytes:
    return content + b"\t" * 423 + b"\n\n\n"


def _quoted(content: bytes) -> bytes:
    header, _, rest = content.partition(b"\n")
    return b"\t".join(b'"' + name + b'"' for name in header.split(b"\t")) + b"\n" + rest


def _windows(content: bytes) -> bytes:
    return content.replace(b"\n", b"\r\n")


def _decimal_comma(content: bytes) -> bytes:
    return content.replace(b".", b",")


def _tr(label: str, tr: object) -> Callable[[Path], None]:
    return lambda folder: add_series(folder, label, lines(list(names()), series()), tr=tr) and None


_GOOD = tuple(t for t in range(SERIES_VOLUMES) if not 100 <= t < 110)
_OK, _BAD = (RIGHT,), (REFUSED,)
SERIES_CASES = (
    Case(
        "bom",
        "a byte-order mark, as spreadsheets write it",
        _OK,
        _table("bom", around=lambda content: b"\xef\xbb\xbf" + content),
    ),
    Case(
        "utf16",
        "UTF-16, as spreadsheets write “Unicode text”",
        (RIGHT, REFUSED),
        _table("utf16", around=lambda content: content.decode().encode("utf-16")),
    ),
    Case("windows", "ends of lines of Windows", _OK, _table("windows", around=_windows)),
    Case("blankRows", "blank rows at the end", _OK, _table("blankRows", around=_blank_rows)),
    Case("quoted", "names in quotation marks", _OK, _table("quoted", around=_quoted)),
    Case("comma", "separated by commas", _OK, _table("comma", ending=".csv", separator=",")),
    Case(
        "semicolon",
        "separated by semicolons",
        (RIGHT, REFUSED),
        _table("semicolon", ending=".csv", separator=";"),
    ),
    Case(
        "decimalComma",
        "decimal commas",
        (RIGHT, REFUSED),
        _table("decimalComma", ending=".csv", separator=";", around=_decimal_comma),
    ),
    Case(
        "spaces",
        "separated by blanks, without names",
        _OK,
        _table("spaces", header=list, ending=".dat", separator=" "),
    ),
    Case("noNames", "a table without names", (RIGHT, REFUSED), _table("noNames", header=list)),
    Case(
        "numbered",
        "columns that are numbered 0 … 423",
        (RIGHT, REFUSED, WARNED),
        _table("numbered", header=lambda: [str(k) for k in range(424)]),
    ),
    Case(
        "shuffled",
        "columns in another order",
        _OK,
        _table("shuffled", _shuffled, header=lambda: [names()[k] for k in _ORDER]),
    ),
    Case(
        "lower",
        "names in lower case",
        (RIGHT, REFUSED),
        _table("lower", header=lambda: [name.lower() for name in names()]),
    ),
    Case(
        "index",
        "an unnamed column of indices, as pandas writes it",
        (RIGHT, REFUSED),
        _table("index", _with_index, header=lambda: ["", *names()]),
    ),
    Case(
        "time",
        "a column of volumes",
        (RIGHT, REFUSED),
        _table("time", _with_index, header=lambda: ["volume", *names()]),
    ),
    Case(
        "other",
        "names of another atlas",
        _BAD,
        _table("other", header=lambda: [f"Schaefer_{k}" for k in range(424)]),
        says="a424",
    ),
    Case(
        "twice",
        "a name that stands there twice",
        _BAD,
        _table("twice", header=lambda: [names()[0], *names()[:-1]]),
    ),
    Case("few", "400 columns", _BAD, _npy("few", _few), says="424"),
    Case(
        "transposed",
        "a row per parcel",
        (REFUSED, RIGHT, WARNED),
        _npy("transposed", lambda data: data.T),
        says="transpose",
    ),
    Case(
        "naRows",
        "n/a in censored volumes, as XCP-D writes them",
        (RIGHT, WARNED),
        _table("naRows", _rows(np.nan)),
        good=_GOOD,
        least_r=0.99,
    ),
    Case(
        "zeroRows",
        "zeros in 10 of 120 volumes",
        (RIGHT, WARNED),
        _table("zeroRows", _rows(0.0)),
        good=_GOOD,
        least_r=0.99,
    ),
    Case("naColumn", "a parcel of n/a", (RIGHT, WARNED), _table("naColumn", _column(np.nan))),
    Case("constant", "a parcel with one value", (RIGHT, WARNED), _table("constant", _column(5.0))),
    Case(
        "infinite",
        "infinite values in 10 of 120 volumes",
        (REFUSED, WARNED),
        _npy("infinite", _rows(np.inf)),
        good=_GOOD,
        least_r=0.99,
    ),
    Case(
        "word",
        "a word among the numbers",
        _BAD,
        _table("word", around=lambda content: content[:-30] + b"\t#DIV/0!\n"),
    ),
    Case("short", "12 volumes", _BAD, _npy("short", _short), says="volumes"),
    Case("empty", "a file of 0 bytes", _BAD, _text("empty", lambda: b"")),
    Case("damaged", "a damaged .npy", _BAD, _text("damaged", lambda: b"\x93NUMPY", ".npy")),
    Case(
        "pickled", "a .npy that would run code", _BAD, _text("pickled", lambda: _pickle(), ".npy")
    ),
    Case(
        "complexNpy",
        "complex values",
        (REFUSED, WARNED),
        _npy("complexNpy", lambda data: data * (1 + 0.5j)),
    ),  # type: ignore[arg-type, return-value]
    Case(
        "tr735",
        "RepetitionTime 735 in its JSON",
        _BAD,
        _tr("tr735", 735),
        says="second|tr|repetition",
    ),
    Case("trWord", 'RepetitionTime "fast" in its JSON', _BAD, _tr("trWord", "fast")),
    Case("noTr", "no repetition time", _BAD, _tr("noTr", None), says="--timeseries-tr"),
    Case("slow", "a repetition time of 2 s", (WARNED,), _tr("slow", 2.0)),
    Case("hcp", "HCP’s repetition time of 0.72 s", _OK, _tr("hcp", 0.72)),
)


def _pickle() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def _command(folder: Path, raw: str = "raw") -> list[str]:
    found = sorted(path for path in (folder / "series").iterdir() if path.suffix != ".json")
    return [
        *(str(folder / raw), str(folder / "out"), "participant", "-w", str(folder / "work")),
        *("--offline", "--atlas", ATLAS, "--model", "none", "--timeseries", *map(str, found)),
    ]


SERIES = Batch(
    "series",
    "Parcel series that were made elsewhere (`--timeseries`).",
    series_dataset,
    _command,
    SERIES_CASES,
    quick=True,
)


def _described(content: bytes | None) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        path = folder / "raw" / "dataset_description.json"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)

    return prepare


def _own(folder_name: str) -> tuple[str, ...]:
    return (
        *("{folder}/raw", f"{{folder}}/{folder_name}", "participant", "-w", "{folder}/work"),
        *("--offline", "--atlas", ATLAS, "--model", "none", "--dry-run"),
        *("--timeseries", "{folder}/series/sub-benign_task-rest_timeseries.tsv"),
    )


_NAME = '{"Name": "Zürich", "BIDSVersion": "1.8.0"}'
DATASETS = Batch(
    "series, data set",
    "A series needs no data set: its description may be missing or damaged.",
    series_dataset,
    lambda folder: [],
    (
        Case(
            "noDescription",
            "no dataset_description.json",
            _OK,
            _described(None),
            arguments=_own("a"),
        ),
        Case(
            "cutDescription",
            "dataset_description.json cut short",
            (RIGHT, WARNED),
            _described(b'{"Name": "x"'),
            arguments=_own("b"),
        ),
        Case(
            "bomDescription",
            "dataset_description.json with a byte-order mark",
            _OK,
            _described(b"\xef\xbb\xbf" + _NAME.encode()),
            arguments=_own("c"),
        ),
        Case(
            "latinDescription",
            "dataset_description.json in Latin-1",
            (RIGHT, WARNED),
            _described(_NAME.encode("latin-1")),
            arguments=_own("d"),
        ),
    ),
    dry=True,
    quick=True,
)
