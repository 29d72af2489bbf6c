"""Parcel series made elsewhere: a file comes in; a series (T, 424) and its repetition time go out.

Understood are numbers in columns: .tsv and .csv (with or without a row of names), .dat and .txt,
.npy, and CIFTI .ptseries.nii. Missing values are n/a or nan.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.bids.names import alphanumeric, parse, sidecar_of
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json, read_text

EXTENSIONS = (".tsv", ".csv", ".dat", ".txt", ".npy", ".ptseries.nii")
MISSING = ("", "n/a", "nan", "NaN", "NA")


class Timeseries(NamedTuple):
    """A parcel series.

    Attributes
    ----------
    values
        (T, 424), NaN where missing.
    tr
        Repetition time in s; None where neither the file nor a JSON beside it records one.
    """

    values: NDArray[np.float64]
    tr: float | None


def read_timeseries(path: Path, names: Sequence[str]) -> Timeseries:
    """Read a parcel series.

    Parameters
    ----------
    path
        The file.
    names
        Of the parcels. Columns with these names may be in any order; columns without names must be
        as many, in the order of the atlas.

    Raises
    ------
    UserError
        For anything else.
    """
    try:
        values, found, tr = _read(path)
    except (OSError, ValueError, TypeError, IndexError) as error:
        first = str(error).strip().splitlines()[:1]
        raise UserError(f"{path}: cannot be read ({''.join(first)})") from None
    if values.ndim != 2 or values.shape[1] != len(names):
        hint = "; transpose it" if values.ndim == 2 and values.shape[0] == len(names) else ""
        raise UserError(
            f"{path}: its shape is {values.shape}; expected one row per volume and "
            f"the {len(names)} parcels of A424 as columns{hint}"
        )
    if found and sorted(found) == sorted(names):
        values = values[:, [found.index(name) for name in names]]
    elif found and not all(name.isdigit() for name in found):
        strange = next(name for name in found if name not in names)
        raise UserError(
            f"{path}: its column {strange!r} is not a parcel of A424; remove "
            "the row of names if the columns are in the order of the atlas"
        )
    return Timeseries(values, _sidecar_tr(path) or tr)


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


def _read(path: Path) -> tuple[NDArray[np.float64], list[str], float | None]:
    if path.name.endswith(".ptseries.nii"):
        return _read_cifti(path)
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False).astype(np.float64), [], None
    if path.suffix not in EXTENSIONS:
        raise ValueError(f"expected one of {', '.join(EXTENSIONS)}")
    text = read_text(path)
    if path.suffix in (".tsv", ".csv"):
        delimiter = "\t" if path.suffix == ".tsv" else ","
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    else:
        rows = [line.split() for line in text.splitlines()]
    rows = [row for row in rows if row]
    if not rows:
        raise ValueError("it is empty")
    names = rows[0] if _is_header(rows[0]) else []
    body = rows[1:] if names else rows
    values = [[np.nan if cell in MISSING else float(cell) for cell in row] for row in body]
    return np.array(values, dtype=np.float64), names, None


def _is_header(row: list[str]) -> bool:
    """Words, or the numbers 0, 1, … or 1, 2, … that tables without names are often given."""
    if not all(_is_number(cell) for cell in row):
        return True
    return row in ([str(k + first) for k in range(len(row))] for first in (0, 1))


def _is_number(cell: str) -> bool:
    try:
        return cell in MISSING or np.isfinite(float(cell))
    except ValueError:
        return False


def _read_cifti(path: Path) -> tuple[NDArray[np.float64], list[str], float | None]:
    import nibabel as nb

    try:
        image: Any = nb.load(path)
    except nb.filebasedimages.ImageFileError as error:
        raise ValueError(str(error)) from None
    axes = [image.header.get_axis(k) for k in (0, 1)] if isinstance(image, nb.Cifti2Image) else []
    kinds = (nb.cifti2.SeriesAxis, nb.cifti2.ParcelsAxis)
    if not axes or not all(map(isinstance, axes, kinds)):
        raise ValueError("it is not a CIFTI parcel series")
    time, parcels = axes
    tr = float(time.step) if str(time.unit).upper() == "SECOND" else None
    names = [str(name) for name in getattr(parcels, "name", [])]
    # A424's CIFTI labels are spelt in another way than its table: the order is that of the atlas.
    spelt = [name.removesuffix("_ROI") for name in names]
    return np.asarray(image.dataobj, dtype=np.float64), spelt, tr


def _sidecar_tr(path: Path) -> float | None:
    try:
        content = read_json(sidecar_of(path))
        if "RepetitionTime" in content:
            return float(content["RepetitionTime"])
        return 1 / float(content["SamplingFrequency"]) if "SamplingFrequency" in content else None
    except (UserError, ValueError, TypeError, ZeroDivisionError):
        return None
