"""Which column of a table is which parcel, by the names that programs and people give to columns.

Names of the atlas are understood in any order and in either case, with blanks, dots or hyphens for
underscores, with the ending `_ROI` of the atlas's CIFTI file, and with words that all of them have
in front or behind. Numbers are understood as 1 … 424, the labels of the atlas, or 0 … 423.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

# Names of columns that number the volumes or tell their time: pandas', R's, and those of scripts.
INDEX_NAMES = {
    *("", "unnamed_0", "unnamed_0_1", "index", "row", "rownames", "x", "id"),
    *("time", "times", "time_s", "time_sec", "t", "seconds", "onset", "tr", "trs", "timepoint"),
    *("time_point", "volume", "volumes", "vol", "frame", "frames", "scan", "sample"),
}
# What may stand before the number of a column (nilearn, R, MATLAB, scripts). Another word may be
# the name of another atlas with as many regions.
NUMBER_WORDS = {
    *("", "a424", "parcel", "parcels", "roi", "rois", "label", "region", "node", "column", "col"),
    *("var", "feature", "niftilabelsmasker", "a424masker", "x", "v"),
}

# Share of the parcels whose labels must stand in a row for it to be a header.
MOST = 0.9


def find_columns(columns: Sequence[str], parcels: Sequence[str]) -> tuple[list[int], list[int]]:
    """Find the columns of the parcels, and those that merely number the volumes.

    Parameters
    ----------
    columns
        Names of the columns, as they stand in the table.
    parcels
        (P,) names of the parcels, in the order of the atlas.

    Returns
    -------
    places
        (P,) the column of each parcel.
    index
        Columns of numbers or times of volumes, beside those of the parcels.

    Raises
    ------
    ValueError
        In one line, if the columns are not these parcels.

    Examples
    --------
    >>> find_columns(["Unnamed: 0", "A424_L-V1", "A424_r_v1_ROI"], ["R_V1", "L_V1"])
    ([2, 1], [0])
    >>> find_columns(["ROI2", "ROI1"], ["R_V1", "L_V1"])
    ([1, 0], [])
    """
    plain = [_plain(column) for column in columns]
    index = [place for place, name in enumerate(plain) if name in INDEX_NAMES]
    rest = [place for place, name in enumerate(plain) if name not in INDEX_NAMES]
    names = [columns[place] for place in rest]
    found = match_names(names, parcels)
    if found is None:
        found = _match_numbers(names, len(parcels))
    if found is None:
        raise ValueError(_what_is_wrong(names, parcels))
    return [rest[place] for place in found], index


def match_names(names: Sequence[str], parcels: Sequence[str]) -> list[int] | None:
    """The place of each parcel among names; None unless they are exactly the parcels.

    Parameters
    ----------
    names
        In any order and spelling.
    parcels
        (P,) in the order of the atlas.

    Examples
    --------
    >>> match_names(["ts L V1", "ts R V1"], ["R_V1", "L_V1"])
    [1, 0]
    """
    if len(names) != len(parcels):
        return None
    plain, wanted = [_plain(name) for name in names], [_plain(parcel) for parcel in parcels]
    # what all have in front or behind, and the parcels' own names have not
    front = _n_common(plain) - _n_common(wanted)
    behind = _n_common([name[::-1] for name in plain]) - _n_common([name[::-1] for name in wanted])
    bare = [name[max(front, 0) : len(name) - max(behind, 0)] for name in plain]
    for candidate in (plain, bare):
        place = {name.removesuffix("_roi"): k for k, name in enumerate(candidate)}
        if place.keys() >= set(wanted):
            return [place[name] for name in wanted]
    return None


def are_labels(values: NDArray[np.float64], n_parcels: int) -> bool:
    """Whether numbers are the labels of the parcels, 1 … P or 0 … P − 1, each once.

    >>> are_labels(np.array([2.0, 3.0, 1.0]), 3), are_labels(np.array([1.0, 1.0, 2.0]), 3)
    (True, False)
    """
    ordered = np.sort(values)
    steps = np.arange(n_parcels)
    return len(values) == n_parcels and any(np.array_equal(ordered, steps + k) for k in (0, 1))


def number_parcels(values: NDArray[np.float64], n_parcels: int) -> bool:
    """Whether numbers are labels of most parcels, as of an atlas that lacks one: each once.

    >>> number_parcels(np.array([1.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]), 10)
    True
    """
    whole = bool((values == np.round(values)).all()) and len(set(values.tolist())) == len(values)
    inside = bool(((values >= 0) & (values <= n_parcels)).all())
    return whole and inside and len(values) >= MOST * n_parcels


def check_index(values: NDArray[np.float64], name: str) -> None:
    """Raise ValueError where a column of numbers or times of volumes does not increase.

    Parameters
    ----------
    values
        (T,) NaN where it holds words.
    name
        Of the column.
    """
    if np.isfinite(values).all() and (np.diff(values) <= 0).any():
        row = int(np.flatnonzero(np.diff(values) <= 0)[0]) + 2
        raise ValueError(
            f"its column {name!r} does not increase at row {row} of the values; does it hold "
            "several recordings? A file holds one"
        )


def check_series(values: NDArray[np.float64], n_parcels: int, *, named: bool) -> None:
    """Raise ValueError, in one line, where an array cannot be a series (T, P).

    Parameters
    ----------
    values
        The array.
    n_parcels
        P.
    named
        Whether the columns were found by their names.

    Examples
    --------
    >>> check_series(np.zeros((3, 5)), 3, named=False)
    Traceback (most recent call last):
    ValueError: shape (3, 5); expected (volumes, 3), a column for each parcel of A424; transpose \
it if its rows are the parcels
    """
    if values.ndim != 2 or values.shape[1] != n_parcels:
        turned = values.ndim == 2 and values.shape[0] == n_parcels
        hint = "; transpose it if its rows are the parcels" if turned else ""
        raise ValueError(
            f"shape {values.shape}; expected (volumes, {n_parcels}), a column for each parcel of "
            f"A424{hint}"
        )
    if len(values) != n_parcels:
        return
    if np.allclose(values, values.T, equal_nan=True):
        raise ValueError("a symmetric matrix, such as functional connectivity, and not a series")
    if not named:
        raise ValueError(
            f"{n_parcels} rows and {n_parcels} columns without names: it cannot be told which are "
            "the parcels; name the columns"
        )


def _plain(name: str) -> str:
    """Lower case, words joined by underscores, without quotes.

    >>> _plain(" Left I-IV"), _plain("Unnamed: 0")
    ('left_i_iv', 'unnamed_0')
    """
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")


def _n_common(names: Sequence[str]) -> int:
    """With how many equal letters all names begin."""
    columns = zip(*names, strict=False)  # as far as the shortest goes
    return sum(1 for _ in takewhile(lambda letters: len(set(letters)) == 1, columns))


def _match_numbers(names: Sequence[str], n_parcels: int) -> list[int] | None:
    """The place of each parcel among numbered columns; None if they are not all of them."""
    parts = [_numbered(name) for name in names]
    words = {word for part in parts if part for word in part[0].split("_")}
    numbers = np.array([part[1] for part in parts if part])
    if len(numbers) != len(names) or len({part[0] for part in parts if part}) != 1:
        return None
    if not words <= NUMBER_WORDS or not are_labels(numbers, n_parcels):
        return None
    return [int(place) for place in np.argsort(numbers)]


def _numbered(name: str) -> tuple[str, float] | None:
    """The words before a number, and the number.

    >>> _numbered("A424 parcel_007"), _numbered("4.24e+02"), _numbered("V1_L")
    (('a424_parcel', 7.0), ('', 424.0), None)
    """
    try:
        return "", float(name)
    except ValueError:
        parts = re.fullmatch(r"(.*?)(\d+)", name.strip())
    return (_plain(parts[1]), float(parts[2])) if parts else None


def _what_is_wrong(names: Sequence[str], parcels: Sequence[str]) -> str:
    """Why these names of columns, without those of an index, are not the parcels."""
    n = len(parcels)
    twice = [name for name, count in Counter(map(_plain, names)).items() if count > 1]
    known = {_plain(parcel) for parcel in parcels}
    bare = {_plain(name).removesuffix("_roi") for name in names}
    unknown = [name for name in names if _plain(name).removesuffix("_roi") not in known]
    missing = [parcel for parcel in parcels if _plain(parcel) not in bare]
    parts = [part for part in map(_numbered, names) if part]
    numbers, words = [part[1] for part in parts], {w for p in parts for w in p[0].split("_")}
    if len(numbers) == len(names) and words <= NUMBER_WORDS:
        absent = sorted(set(range(1, n + 1)) - {int(number) for number in numbers})
        what = f"they are not the labels 1 to {n}, or 0 to {n - 1}"
        what += f" ({absent[0]} is missing)" if len(names) < n and absent else ""
    elif twice:
        first = next(name for name in names if _plain(name) == twice[0])
        what = f"{first!r} stands for more than one"
    elif unknown:
        what = f"{unknown[0]!r} is no parcel of A424"
    else:
        what = f"{missing[0]!r} is missing"
    return (
        f"it has {len(names)} columns, and {what}; expected are the {n} parcels of A424, by name "
        f"or by number, in any order, or {n} columns without names in the order of the atlas"
    )
