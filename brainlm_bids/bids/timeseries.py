"""Parcel series made elsewhere: a file comes in; a series (T, 424) and its repetition time go out.

Understood are tables (.tsv, .csv, .txt, .dat) as nilearn, XCP-D, CONN, R, MATLAB, spreadsheets and
people's scripts write them, .npy, and CIFTI .ptseries.nii. What `spreadsheets` and
`parcels.columns` say about cells and about names holds. A file without names has its columns in the
order of the atlas; rows are volumes, unless they have the names of the parcels.
"""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.bids.names import alphanumeric, parse, sidecar_of
from brainlm_bids.bids.spreadsheets import Cells, is_number, numbers, read_cells
from brainlm_bids.bounds import LARGEST_TABLE, check_columns, check_regular
from brainlm_bids.cells import is_missing
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json, read_text
from brainlm_bids.image_files import open_image
from brainlm_bids.parcels.columns import (
    are_labels,
    check_index,
    check_series,
    find_columns,
    match_names,
    number_parcels,
)

TABLES = (".tsv", ".csv", ".dat", ".txt")
EXTENSIONS = (*TABLES, ".npy", ".ptseries.nii")
# How to save what is not read.
INSTEAD = {
    ".mat": "save it as text, in MATLAB with writematrix(series, 'series.csv'), a row per volume",
    ".xlsx": "save the sheet as CSV",
    ".xls": "save the sheet as CSV",
    ".ods": "save the sheet as CSV",
    ".npz": "save its array with numpy.save, as .npy",
    ".gz": "decompress it",
}
# Names of a first column that holds the labels of parcels, a row for each.
LABELS = {"parcel", "roi", "label", "region", "node", "index", "a424"}


class Timeseries(NamedTuple):
    """A parcel series.

    Attributes
    ----------
    values
        (T, 424), NaN where missing.
    tr
        Repetition time in s, of the JSON file beside it or, without one, of the file; None where
        neither records one.
    header_tr
        That of the file alone.
    start
        Time that the first row stands for, in s after the scan began: StartTime of the JSON file.
    """

    values: NDArray[np.float64]
    tr: float | None
    header_tr: float | None = None
    start: float = 0.0


def read_timeseries(path: Path, names: Sequence[str]) -> Timeseries:
    """Read a parcel series.

    Parameters
    ----------
    path
        The file.
    names
        Of the parcels. Columns with these names, or with the numbers of the parcels, may be in any
        order; columns without names must be as many, in the order of the atlas.

    Raises
    ------
    UserError
        For anything else, in one line.
    """
    try:
        values, tr = _read(path, names)
    except (OSError, ValueError, TypeError, IndexError, OverflowError, csv.Error) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: cannot be read as a parcel series: {first}") from None
    recorded = _recorded(path)
    return Timeseries(values, _recorded_tr(recorded, path) or tr, tr, _recorded_start(recorded))


def stem_of(path: Path) -> str:
    """The name under which a series is processed: its BIDS entities, or letters and digits.

    >>> stem_of(Path("sub-01_task-rest_space-MNI152NLin6Asym_atlas-A424_timeseries.tsv"))
    'sub-01_task-rest'
    >>> stem_of(Path("patient_7.npy"))
    'sub-patient7_task-unknown'
    """
    name = parse(path.name)
    stem = name.source if "sub" in name.entities else f"sub-{alphanumeric(name.bare)}"
    return stem if "task" in name.entities else f"{stem}_task-unknown"


def _read(path: Path, names: Sequence[str]) -> tuple[NDArray[np.float64], float | None]:
    if path.name.endswith(".ptseries.nii"):
        return _read_cifti(path, names)
    if path.suffix in TABLES:
        text = read_text(path)
        check_columns(path, text.encode(), b"\t,; ")
        return series_of_cells(read_cells(text), names), None
    if path.suffix != ".npy":
        hint = INSTEAD.get(path.suffix, "")
        raise ValueError(f"expected one of {', '.join(EXTENSIONS)}{hint and '; '}{hint}")
    values = np.load(path, mmap_mode="r", allow_pickle=False)  # what it claims takes no memory
    if not isinstance(values, np.ndarray):
        raise ValueError("it holds several arrays (.npz); save one of them with numpy.save")
    if check_regular(path) > LARGEST_TABLE:
        raise ValueError(f"its shape is {values.shape}, which no recording has")
    if np.iscomplexobj(values):
        raise ValueError("its numbers are complex; save their magnitude")
    values = values.astype(np.float64)
    check_series(values, len(names), named=False)
    return np.where(np.isfinite(values), values, np.nan), None


def series_of_cells(cells: Cells, names: Sequence[str]) -> NDArray[np.float64]:
    """The series in a table.

    Parameters
    ----------
    cells
        Rows of text, the first of which may be a header.
    names
        (P,) of the parcels.

    Returns
    -------
    ndarray
        (T, P), in the order of `names`; NaN where missing.

    Raises
    ------
    ValueError
        In one line, if the table is no such series.

    Examples
    --------
    >>> series_of_cells([["time", "L_V1", "R_V1"], ["0", "3", "4"], ["2", "5", "6"]],
    ...                 ["R_V1", "L_V1"])
    array([[4., 3.],
           [6., 5.]])
    """
    turned = _with_named_rows(cells, names)
    if turned is not None:
        values = turned
    elif has_header(cells, len(names)):
        values = _with_named_columns(cells, names)
    else:
        values = numbers(cells)
        if values.shape[1] == len(names) + 1 and _counts(values[:, 0]):
            values = values[:, 1:]
        check_series(values, len(names), named=False)
        return values
    check_series(values, len(names), named=True)
    return values


def has_header(cells: Cells, n_parcels: int) -> bool:
    """Whether the first row of a table has names, or the numbers of columns, and no values.

    Numbers are names if they are 0, 1, 2 …, 1, 2, 3 …, or labels of parcels in any order, and the
    second row does not go on like this, as ramps and ranks do.

    >>> has_header([["1", "2"], ["0.3", "-4.1"]], 2), has_header([["0", "1"], ["2", "3"]], 2)
    (True, False)
    """
    first = [cell for cell in cells[0] if cell]
    if not all(is_number(cell) or is_missing(cell) for cell in first):
        return True
    if len(first) < len(cells[0]) - 1 or not all(map(is_number, first)):
        return False
    values = numbers([first])[0]
    steps = np.arange(len(values))
    counted = any(np.array_equal(values, steps + k) for k in (0, 1))
    if not counted and not number_parcels(values, n_parcels):
        return False
    if len(cells) == 1 or not all(map(is_number, cells[1])):
        return True
    after = numbers([cells[1][len(cells[1]) - len(first) :]])[0]
    return not (np.ptp(after - values) == 0 or number_parcels(after, n_parcels))


def _with_named_columns(cells: Cells, names: Sequence[str]) -> NDArray[np.float64]:
    header, body = cells[0], cells[1:]
    if not body:
        raise ValueError("there is no row of values below the names")
    places, index = find_columns(header, names)
    for place in index:
        column = [row[place] for row in body]
        if all(map(is_number, column)):
            check_index(numbers([column])[0], header[place])
        elif len(set(column)) not in (1, len(column)):
            raise ValueError(
                f"its column {header[place]!r} repeats itself; a file holds one series"
            )
    return numbers([[row[place] for place in places] for row in body])


def _with_named_rows(cells: Cells, names: Sequence[str]) -> NDArray[np.float64] | None:
    """The series of a table with a row per parcel, turned; None if its rows are not named so."""
    for n_header, column in ((0, 0), (1, 0), (0, 1), (1, 1)):
        rows = cells[n_header:]
        if len(rows) != len(names) or len(cells[0]) < column + 2:
            continue
        labels = [row[column] for row in rows]
        order = match_names(labels, names)
        if order is None and n_header and cells[0][column].strip().lower() in LABELS:
            labelled = all(map(is_number, labels)) and numbers([labels])[0]
            if labelled is not False and are_labels(labelled, len(names)):
                order = [int(place) for place in np.argsort(labelled)]
        if order is not None:
            return numbers([rows[place][column + 1 :] for place in order]).T
    return None


def _counts(column: NDArray[np.float64]) -> bool:
    """Whether a column numbers the rows, or tells their time, in equal steps."""
    steps = np.diff(column)
    return len(steps) > 1 and steps[0] > 0 and bool(np.allclose(steps, steps[0], rtol=1e-3))


def _read_cifti(path: Path, names: Sequence[str]) -> tuple[NDArray[np.float64], float | None]:
    import nibabel as nb

    try:
        image = open_image(path)
    except nb.filebasedimages.ImageFileError as error:
        raise ValueError(str(error)) from None
    axes = [image.header.get_axis(k) for k in (0, 1)] if isinstance(image, nb.Cifti2Image) else []
    kinds = (nb.cifti2.SeriesAxis, nb.cifti2.ParcelsAxis)
    if not axes or not all(map(isinstance, axes, kinds)):
        raise ValueError("it is not a CIFTI parcel series")
    time, parcels = axes
    tr = float(time.step) if str(time.unit).upper() == "SECOND" else None
    places, _ = find_columns([str(name) for name in getattr(parcels, "name", [])], names)
    return np.asarray(image.dataobj, dtype=np.float64)[:, places], tr


def _recorded(path: Path) -> dict[str, Any]:
    """The JSON file beside a series; empty where there is none that can be read."""
    try:
        return read_json(sidecar_of(path))
    except UserError:
        return {}


def _recorded_tr(content: dict[str, Any], path: Path) -> float | None:
    # HALFpipe, whose names have a feature, writes the repetition time there
    frequency = None if "feature" in parse(path.name).entities else content.get("SamplingFrequency")
    try:
        if "RepetitionTime" in content:
            return float(content["RepetitionTime"])
        return None if frequency is None else 1 / float(frequency)
    except (ValueError, TypeError, ZeroDivisionError):
        return None


def _recorded_start(content: dict[str, Any]) -> float:
    start = content.get("StartTime", 0.0)
    usable = isinstance(start, int | float) and math.isfinite(start)
    return float(start) if usable else 0.0
