"""Whether two output folders hold the same, file by file: before and after a change of the code.

    python -m benchmarks.same_bytes BEFORE AFTER [--renamed FILE.tsv] [--columns FILE.tsv]

It runs nothing. Tables, figures and other text are compared by their bytes, NIfTI by its bytes
without the compression, .npz by array, .h5 by data set, JSON by value, HTML by what it says. Left
out: folders `logs`; JSON keys that may change without a number that does (`VOLATILE`), and such
columns of a page's tables; the place of the output folder, in all text; the versions of ITK, HDF5
and the system in .h5 files.

Names that were changed on purpose stand in --renamed: a regular expression for the path in BEFORE,
and what takes its place, per row. They are applied to the text of BEFORE's files too, since
sidecars and pages name other files. Columns that were renamed on purpose stand in --columns: a
regular expression for the table's path in AFTER, one for the column, and its new name. Neither file
has a header.

The exit code is 1 if anything that BEFORE holds differs or is missing in AFTER: a line per file
says how much. What AFTER has beyond it (files, JSON keys, columns, arrays) is listed, and is no
difference.
"""

import argparse
import csv
import gzip
import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import nibabel as nib
import numpy as np
from numpy.typing import NDArray

SKIPPED_FOLDER = "logs"
# JSON keys, at any depth: versions of software, hashes of a configuration, dates, times taken
VOLATILE = re.compile(
    r"Version|SoftwareVersions|Configuration|ConfigurationHash"
    r"|Date|DateTime|Seconds|seconds|PeakMemoryMB|peak_memory_mb"
)
# columns of the tables of a page: what a call took, and where its error is told
VOLATILE_COLUMNS = ("Time (s)", "Peak memory (MB)", "Crash file")
# data sets of ITK's transforms that tell of the machine
MACHINE = ("HDFVersion", "ITKVersion", "OSName", "OSVersion")
HERE = "<output folder>"
Rename = tuple[re.Pattern[str], str]
Arrays = Mapping[str, NDArray[Any]]


class Rules(NamedTuple):
    """What was changed on purpose.

    files: patterns of paths, and what takes their place; columns: a pattern of the table's path, a
    pattern of the column, its new name; folders: BEFORE and AFTER, whose place does not count.
    """

    files: Sequence[Rename] = ()
    columns: Sequence[tuple[re.Pattern[str], re.Pattern[str], str]] = ()
    folders: tuple[Path, Path] = (Path("BEFORE"), Path("AFTER"))


class Finding(NamedTuple):
    """Of one file: how it differs ("" if it does not), and what was added."""

    difference: str = ""
    added: tuple[str, ...] = ()


class Comparison(NamedTuple):
    """Of two folders: findings per path, and the paths on one side only (names of AFTER)."""

    findings: dict[str, Finding]
    only_before: list[str]
    only_after: list[str]

    @property
    def same(self) -> bool:
        """Whether all that the first folder holds is in the second one."""
        return not self.only_before and not any(f.difference for f in self.findings.values())


# --- folders -----------------------------------------------------------------------------------


def compare(rules: Rules) -> Comparison:
    """Compare the files of `rules.folders`.

    Parameters
    ----------
    rules : Rules
        The two folders, and what was changed on purpose.

    Returns
    -------
    Comparison
        A finding for each file that lies in both folders, and the names of the others.

    Raises
    ------
    ValueError
        If two files of BEFORE get the same name.
    NotADirectoryError
        If one of the folders is not there.
    """
    before, after = (_files(folder) for folder in rules.folders)
    renamed: dict[str, Path] = {}
    for name, path in before.items():
        new = rename(name, rules.files)
        if new in renamed:
            raise ValueError(f"--renamed: {path} and {renamed[new]} are both called {new}")
        renamed[new] = path
    both = sorted(renamed.keys() & after.keys())
    return Comparison(
        {name: compare_files(name, renamed[name], after[name], rules) for name in both},
        sorted(renamed.keys() - after.keys()),
        sorted(after.keys() - renamed.keys()),
    )


def _files(folder: Path) -> dict[str, Path]:
    """The files of a folder by their relative path, without those of the folders of logs."""
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: no such folder")
    found = {}
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if path.is_file() and SKIPPED_FOLDER not in relative.parts[:-1]:
            found[relative.as_posix()] = path
    return found


def rename(text: str, renames: Sequence[Rename]) -> str:
    r"""Apply each renaming, in the order of the file.

    >>> rename("sub-01_desc-robust_bold.tsv", [(re.compile(r"desc-robust_(\w+)"), r"desc-z_\1")])
    'sub-01_desc-z_bold.tsv'
    """
    for pattern, new in renames:
        text = pattern.sub(new, text)
    return text


def compare_files(name: str, before: Path, after: Path, rules: Rules) -> Finding:
    """Compare one file by the rules of its kind.

    Parameters
    ----------
    name : str
        Its path in AFTER, whose extension says the kind.
    before, after : Path
        Where the two files lie.
    rules : Rules
        What was changed on purpose.

    Returns
    -------
    Finding
        A file that cannot be read is one that differs.
    """
    one, other = before.read_bytes(), after.read_bytes()
    if one == other:
        return Finding()
    comparison = next((f for ends, f in KINDS.items() if name.endswith(ends)), None)
    if comparison is None:
        return Finding(f"{len(one)} and {len(other)} bytes, not the same")
    try:
        return comparison(name, one, other, rules)
    except Exception as error:
        return Finding(f"cannot be compared: {type(error).__name__}: {error}")


# --- text --------------------------------------------------------------------------------------


def _texts(one: bytes, other: bytes, rules: Rules) -> tuple[str, str]:
    """Both texts without the place of their folder, the first with the new names."""
    before, after = (
        _without(content.decode(), folder)
        for content, folder in zip((one, other), rules.folders, strict=True)
    )
    return rename(before, rules.files), after


def _without(text: str, folder: Path) -> str:
    """A text without the place of a folder; a longer name that begins alike stays.

    >>> _without("file:///data/out/sub-01, /data/out2", Path("/data/out"))
    'file://<output folder>/sub-01, /data/out2'
    """
    return re.sub(re.escape(str(folder.resolve())) + r"(?![\w.-])", HERE, text)


def compare_text(name: str, one: bytes, other: bytes, rules: Rules) -> Finding:
    """Compare text; a difference is the first line that is not the same."""
    return Finding(_first_line(*_texts(one, other, rules)))


def _first_line(one: str, other: str) -> str:
    """The first line that differs, from both.

    >>> _first_line("a b\\nc", "a b\\nd")
    "line 2: 'c' and 'd'"
    """
    if one == other:
        return ""
    lines, others = one.split("\n"), other.split("\n")
    pairs = enumerate(zip(lines, others), start=1)
    for number, (line, other_line) in pairs:
        if line != other_line:
            return f"line {number}: {' and '.join(_around(line, other_line))}"
    return f"{len(lines)} and {len(others)} lines, the first {min(len(lines), len(others))} equal"


def _around(one: str, other: str, width: int = 50) -> tuple[str, str]:
    """What two lines say around the first character that differs."""
    pairs = enumerate(zip(one, other))
    at = next((k for k, (a, b) in pairs if a != b), min(len(one), len(other)))
    start = max(0, at - width // 2)
    return repr(one[start : start + width]), repr(other[start : start + width])


def compare_page(name: str, one: bytes, other: bytes, rules: Rules) -> Finding:
    """Compare the text of two HTML pages, tags and style sheets left out."""
    before, after = _texts(one, other, rules)
    return Finding(_first_line(page_text(before), page_text(after)))


def page_text(page: str) -> str:
    """What a page says, a piece of text or a row of a table per line, and the files it shows.

    >>> page_text('<style>p {}</style><p class="a">of <b>7</b> <img src="a.svg" alt="map"></p>')
    'of\\n7\\na.svg\\nmap'
    >>> page_text("<tr><th>Run</th><th>Time (s)</th></tr><tr><td>1</td><td>7.5</td></tr>")
    'Run | Time (s)\\n1'
    """
    reader = _PageReader()
    reader.feed(page)
    reader.close()
    return "\n".join(" | ".join(pieces) for pieces in reader.lines if pieces)


class _PageReader(HTMLParser):
    """Collects the pieces of each line that a page says in `lines`."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[list[str]] = []
        self._silent = self._in_row = False  # in a style sheet or a script; in a row of a table
        self._column = -1
        self._left_out: set[int] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent = tag in ("style", "script")
        if tag == "table":
            self._left_out = set()
        elif tag == "tr":
            self._in_row, self._column = True, -1
            self.lines.append([])
        elif tag in ("th", "td"):
            self._column += 1
        for key, value in attrs:
            if value and key in ("src", "data", "href", "alt"):
                self._take(value)

    def handle_endtag(self, tag: str) -> None:
        self._silent = False
        if tag == "tr":
            self._in_row = False

    def handle_data(self, data: str) -> None:
        text = " ".join(data.split())
        if text and not self._silent:
            self._take(text)

    def _take(self, text: str) -> None:
        if not self._in_row:
            self.lines.append([text])
        elif self._column not in self._left_out:
            self.lines[-1].append(text)
            if text in VOLATILE_COLUMNS:
                self._left_out.add(self._column)


# --- tables ------------------------------------------------------------------------------------


def compare_table(name: str, one: bytes, other: bytes, rules: Rules) -> Finding:
    """Compare two tables by their bytes; columns that were added are listed.

    A difference is the largest one of the numbers, or the first other cell.
    """
    before, after = (text.split("\n") for text in _texts(one, other, rules))
    before[0] = "\t".join(_new_names(name, before[0].split("\t"), rules))
    if before == after:
        return Finding()
    tables = [[line.split("\t") for line in lines if line] for lines in (before, after)]
    headers = [table[0] if table else [] for table in tables]
    added = tuple(column for column in headers[1] if column not in headers[0])
    if [column for column in headers[1] if column not in added] != headers[0]:
        return Finding(_first_line(before[0], after[0]), added)
    if len(tables[0]) != len(tables[1]):
        return Finding(f"{len(tables[0]) - 1} and {len(tables[1]) - 1} rows", added)
    places = [headers[1].index(column) for column in headers[0]]
    kept = [[row[k] for k in places] for row in tables[1]]
    return Finding(_cells(tables[0], kept) or _written(before, after, added), added)


def _new_names(name: str, columns: list[str], rules: Rules) -> list[str]:
    """The columns of a table of BEFORE, as AFTER calls them."""
    for table, column, new in rules.columns:
        if table.search(name):
            columns = [column.sub(new, one) if column.fullmatch(one) else one for one in columns]
    return columns


def _cells(before: list[list[str]], after: list[list[str]]) -> str:
    """How the cells of two tables of equal columns differ; the first row holds their names."""
    pairs = [
        (number, column, a, b)
        for number, rows in enumerate(zip(before[1:], after[1:], strict=True), start=2)
        for column, a, b in zip(before[0], *rows, strict=True)
        if a != b
    ]
    if not pairs:
        return ""
    differences = [(_distance(a, b), column) for _, column, a, b in pairs]
    text = f"{len(pairs)} of {len(before[0]) * (len(before) - 1)} cells"
    if all(np.isfinite(distance) for distance, _ in differences):
        largest, column = max(differences)
        return f"{text}, max abs difference {largest:.3g} ({column})"
    first = next(k for k, (distance, _) in enumerate(differences) if not np.isfinite(distance))
    number, column, a, b = pairs[first]
    return f"{text}; line {number}, {column}: {' and '.join(_around(a, b))}"


def _distance(a: str, b: str) -> float:
    """The difference of two numbers, NaN where one of the cells is none."""
    try:
        return abs(float(a) - float(b))
    except ValueError:
        return np.nan


def _written(before: list[str], after: list[str], added: tuple[str, ...]) -> str:
    """Equal cells in files that are not: line ends, empty lines."""
    return "" if added else _first_line("\n".join(before), "\n".join(after))


# --- JSON --------------------------------------------------------------------------------------


def compare_json(name: str, one: bytes, other: bytes, rules: Rules) -> Finding:
    """Compare the values of two JSON files; keys that were added are listed."""
    before, after = (json.loads(text) for text in _texts(one, other, rules))
    found = list(_values(before, after, ""))
    added = tuple(key for key, text in found if text is None)
    different = [f"{key}: {text}" for key, text in found if text is not None]
    more = f" (and {len(different) - 1} more)" if len(different) > 1 else ""
    return Finding(different[0] + more if different else "", added)


def _values(before: Any, after: Any, key: str) -> Iterator[tuple[str, str | None]]:
    """Keys whose values differ, with how; None for a key that was added.

    >>> list(_values({"a": 1, "b": [1, 2]}, {"a": 1, "b": [1, 3], "c": 0}, ""))
    [('c', None), ('b[1]', '2 and 3, difference 1')]
    """
    if isinstance(before, dict) and isinstance(after, dict):
        yield from ((_joined(key, k), None) for k in after if _counts(k) and k not in before)
        for k, value in before.items():
            if _counts(k) and k not in after:
                yield _joined(key, k), "is gone"
            elif _counts(k):
                yield from _values(value, after[k], _joined(key, k))
    elif isinstance(before, list) and isinstance(after, list):
        if len(before) != len(after):
            yield key, f"{len(before)} and {len(after)} values"
        for k, (a, b) in enumerate(zip(before, after)):
            yield from _values(a, b, f"{key}[{k}]")
    elif before != after or isinstance(before, bool) != isinstance(after, bool):
        yield key, _how(before, after)


def _counts(key: str) -> bool:
    return VOLATILE.fullmatch(key) is None


def _joined(above: str, key: str) -> str:
    return f"{above}.{key}" if above else key


def _how(before: Any, after: Any) -> str:
    numbers = [isinstance(v, int | float) and not isinstance(v, bool) for v in (before, after)]
    if all(numbers):
        return f"{before!r} and {after!r}, difference {abs(before - after):.3g}"
    if isinstance(before, str) and isinstance(after, str):
        return " and ".join(_around(before, after))
    return f"{before!r:.60} and {after!r:.60}"


# --- arrays ------------------------------------------------------------------------------------


def compare_nifti(name: str, one: bytes, other: bytes, rules: Rules) -> Finding:
    """Compare two images by their bytes, without gzip's, which hold the time of writing."""
    before, after = (_decompressed(content) for content in (one, other))
    if before == after:
        return Finding()
    images = [nib.Nifti1Image.from_bytes(content) for content in (before, after)]
    data = [{"data": np.asarray(image.dataobj), "affine": image.affine} for image in images]
    headers = [image.header for image in images]
    fields = [key for key in headers[0] if headers[0][key].tobytes() != headers[1][key].tobytes()]
    found = _arrays(*data)
    header = f"header: {', '.join(fields)}" if fields else ""
    return Finding("; ".join(filter(None, (found.difference, header))) or "bytes of the header")


def _decompressed(content: bytes) -> bytes:
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def compare_npz(name: str, one: bytes, other: bytes, rules: Rules) -> Finding:
    """Compare the arrays of two .npz files; arrays that were added are listed."""
    return _arrays(*(dict(np.load(io.BytesIO(content))) for content in (one, other)))


def compare_h5(name: str, one: bytes, other: bytes, rules: Rules) -> Finding:
    """Compare the data sets of two HDF5 files; data sets that were added are listed."""
    return _arrays(*(_data_sets(content) for content in (one, other)))


def _data_sets(content: bytes) -> dict[str, NDArray[Any]]:
    found = {}

    def take(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and name not in MACHINE:
            found[name] = np.asarray(item[()])

    with h5py.File(io.BytesIO(content), "r") as file:
        file.visititems(take)
    return found


def _arrays(before: Arrays, after: Arrays) -> Finding:
    """Compare arrays of the same name."""
    gone = [f"{key} is gone" for key in before if key not in after]
    both = [(key, _array(before[key], after[key])) for key in before if key in after]
    different = gone + [f"{key}: {text}" for key, text in both if text]
    return Finding("; ".join(different), tuple(key for key in after if key not in before))


def _array(before: NDArray[Any], after: NDArray[Any]) -> str:
    """How two arrays differ; "" if their bytes are equal.

    >>> _array(np.array([1.0, 2.0]), np.array([1.0, 2.5]))
    '1 of 2 values, max abs difference 0.5'
    """
    if before.dtype != after.dtype or before.shape != after.shape:
        kinds = [f"{array.dtype} {array.shape}" for array in (before, after)]
        return " and ".join(kinds)
    if before.dtype.hasobject:
        return "" if np.array_equal(before, after) else "texts differ"
    if before.tobytes() == after.tobytes():
        return ""
    if before.dtype.kind not in "biufc":
        return f"{np.count_nonzero(before != after)} of {before.size} values"
    return _numbers(before, after)


def _numbers(before: NDArray[Any], after: NDArray[Any]) -> str:
    kind = np.complex128 if before.dtype.kind == "c" else np.float64
    a, b = before.astype(kind), after.astype(kind)
    other = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    if not other.any():
        return "equal numbers in other bytes (-0 or NaN)"
    distance = np.abs(a[other] - b[other])
    text = f"{other.sum()} of {a.size} values"
    if np.isnan(distance).any():
        text += f", {np.isnan(distance).sum()} of them NaN on one side"
        distance = distance[~np.isnan(distance)]
    return text + (f", max abs difference {distance.max():.3g}" if distance.size else "")


# the first end that fits
KINDS: dict[tuple[str, ...], Callable[[str, bytes, bytes, Rules], Finding]] = {
    (".tsv",): compare_table,
    (".json",): compare_json,
    (".nii.gz", ".nii"): compare_nifti,
    (".npz",): compare_npz,
    (".h5",): compare_h5,
    (".html",): compare_page,
    (".svg", ".txt", ".md", ".bib", ".toml", ".csv", ".bidsignore"): compare_text,
}


# --- what is asked, what is said ---------------------------------------------------------------


def read_patterns(path: Path | None, n_columns: int) -> list[list[str]]:
    """The rows of a file of renamings.

    Parameters
    ----------
    path : Path or None
        TSV without a header; empty lines and lines that begin with # do not count.
    n_columns : int
        How many columns it must have.

    Raises
    ------
    ValueError
        If a row has another number of columns.
    """
    if path is None:
        return []
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    rows = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    for row in rows:
        if len(row) != n_columns:
            raise ValueError(f"{path}: {n_columns} columns are expected, not {row}")
    return rows


def report(comparison: Comparison) -> Iterator[str]:
    """The lines that are printed: what was left out, what is on one side, what differs, the sum."""
    yield (
        f"left out: folders {SKIPPED_FOLDER}; JSON keys {VOLATILE.pattern}; columns of pages "
        f"{', '.join(VOLATILE_COLUMNS)}; in .h5 {', '.join(MACHINE)}; the output folder's place"
    )
    yield from (f"only before: {name}" for name in comparison.only_before)
    yield from (f"only after: {name}" for name in comparison.only_after)
    for name, finding in comparison.findings.items():
        if finding.added:
            yield f"added: {name}: {', '.join(finding.added)}"
        if finding.difference:
            yield f"differs: {name}: {finding.difference}"
    n_different = sum(bool(finding.difference) for finding in comparison.findings.values())
    yield (
        f"{len(comparison.findings) - n_different} files the same, {n_different} differ, "
        f"{len(comparison.only_before)} only before, {len(comparison.only_after)} only after"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Compare two folders and print the report; 1 if they differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("before", type=Path, metavar="BEFORE")
    parser.add_argument("after", type=Path, metavar="AFTER")
    parser.add_argument("--renamed", type=Path, metavar="FILE.tsv", help="old path, new path")
    parser.add_argument("--columns", type=Path, metavar="FILE.tsv", help="table, old name, new")
    given = parser.parse_args(argv)
    try:
        rules = Rules(
            [(re.compile(old), new) for old, new in read_patterns(given.renamed, 2)],
            [
                (re.compile(table), re.compile(old), new)
                for table, old, new in read_patterns(given.columns, 3)
            ],
            (given.before, given.after),
        )
        comparison = compare(rules)
    except (OSError, ValueError, re.error) as error:
        parser.error(str(error))
    for line in report(comparison):
        print(line)
    return 0 if comparison.same else 1


if __name__ == "__main__":
    sys.exit(main())
