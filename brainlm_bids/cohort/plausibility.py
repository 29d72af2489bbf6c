"""Codes for missing values and implausible values among the numbers of a column."""

import math

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.cells import as_number

# A value lies this many ranges of the other values away from them if it is said to be implausible.
IMPLAUSIBLE_RANGES = 2
# A code lies this many times further from the values than neighbours among them do.
WIDE_GAP = 3
# Codes for missing values in registries and questionnaires.
MISSING_CODES = (
    *(-1, -3, -7, -8, -9, -77, -88, -99, -777, -888, -999, -7777, -8888, -9999, -99999),
    *(99, 777, 888, 999, 7777, 8888, 9999, 99999),
)


def without_codes(
    texts: list[str | None],
) -> tuple[list[str | None], list[str], list[str]]:
    """Take codes for missing values out of a column of numbers, and look for implausible ones.

    Parameters
    ----------
    texts
        (N,) numbers, None where they are missing.

    Returns
    -------
    kept, coded, doubts
        The texts without codes; what was taken as a code; what may be one, or a mistake.
    """
    numbers = np.array([as_number(text) for text in texts if text is not None])
    codes, doubtful = missing_codes(numbers)
    kept = [None if as_number(text) in codes else text for text in texts]
    coded = [
        f"{code:g} (in {_n(numbers, code)}) lies far outside the other values "
        "and is taken as a code for a missing value"
        for code in sorted(codes)
    ]
    doubts = [
        f"{code:g} (in {_n(numbers, code)}) may be a code for a missing value; "
        "it is taken as a value: write n/a if it is a code"
        for code in sorted(doubtful)
    ]
    left = np.array([as_number(text) for text in kept if text is not None])
    doubts += [
        f"{value:g} (in {_n(left, value)}) lies far outside the other values; "
        "it is taken as a value: write n/a if it is none"
        for value in implausible(left)
        if value not in doubtful
    ]
    return kept, coded, doubts


def _n(numbers: NDArray[np.float64], code: float) -> str:
    count = int((numbers == code).sum())
    return f"{count} recording{'s' if count > 1 else ''}"


def missing_codes(values: NDArray[np.float64]) -> tuple[set[float], set[float]]:
    """Which numbers of a column are codes for missing values, and which may be.

    A number of `MISSING_CODES` is one if it lies further from the other numbers than these are
    from each other (their range), or if it is negative, no other number is, and it lies more than
    three times as far from them as neighbours among them from each other. It may be one if it lies
    outside of them, and is the only kind of negative number, or is repeated.

    Parameters
    ----------
    values
        (N,) without NaN.

    Returns
    -------
    codes, doubtful
        Numbers among the values.

    Examples
    --------
    >>> missing_codes(np.array([20.0, 35, 61, -9999, 44]))
    ({-9999.0}, set())
    >>> missing_codes(np.array([0.0, 3, 10, -1, 7]))
    (set(), {-1.0})
    """
    candidates = set(values.tolist()) & set(map(float, MISSING_CODES))
    others = np.array([value for value in values.tolist() if value not in candidates])
    if not candidates or not others.size:
        return set(), set()
    low, high = others.min(), others.max()
    spread = high - low
    gap = np.diff(np.unique(others)).max() if spread else math.inf
    codes = {
        code
        for code in candidates
        if (spread and not low - spread <= code <= high + spread)
        or (code < 0 <= low and low - code > WIDE_GAP * gap)
    }
    doubtful = {
        code
        for code in candidates - codes
        if not low <= code <= high and ((code < 0 <= low) or (values == code).sum() > 1)
    }
    return codes, doubtful


def implausible(values: NDArray[np.float64]) -> list[float]:
    """The smallest and the largest number, where the others lie close together far away from it.

    Parameters
    ----------
    values
        (N,) without NaN.

    Returns
    -------
    list of float
        Those that lie more than twice the range of all other numbers away from them.

    Examples
    --------
    >>> implausible(np.array([20.0, 35, 61, 44, 52, 470]))
    [470.0]
    """
    distinct = np.unique(values)
    if len(distinct) < 6:  # too few to tell what is usual
        return []
    width = IMPLAUSIBLE_RANGES
    found = []
    if distinct[1] - distinct[0] > width * (distinct[-1] - distinct[1]):
        found.append(float(distinct[0]))
    if distinct[-1] - distinct[-2] > width * (distinct[-2] - distinct[0]):
        found.append(float(distinct[-1]))
    return found
