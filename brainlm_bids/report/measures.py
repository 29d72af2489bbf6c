"""The measures by which recordings are compared, their limits, and the rule for outliers.

What comes in: `data/measures.toml`, and numbers of recordings. What goes out: `Measure` values,
and which numbers are to be marked. The rule is stated and applied here alone.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Protocol

import numpy as np

from brainlm_bids.bids.context import REGISTRATION_FIELDS
from brainlm_bids.bids.quality import REGISTRATION_COLUMNS
from brainlm_bids.files import DATA, read_text
from brainlm_bids.model.baselines import NAMES as BASELINES
from brainlm_bids.parcels.scaling import LARGEST_FACTOR, UKB_SD_DEMEANED, UKB_SD_ROBUST
from brainlm_bids.preproc.registration.quality import limits
from brainlm_bids.report.values import number
from brainlm_bids.settings import Settings

# A number further than this many interquartile ranges beyond the quartiles is an outlier (Tukey,
# 1977), if there are at least so many recordings to compare it with.
FENCE = 1.5
LEAST_RECORDINGS = 10
HIGH, LOW, BOTH, NONE = "high", "low", "both", "none"
_PER_MODEL = re.compile(r"r2_([A-Za-z0-9]+)_masked([0-9]+(?:p[0-9]+)?)(?:_(\w+))?")


@dataclass(frozen=True)
class Measure:
    """A number that every recording has, or may have.

    Attributes
    ----------
    key
        Its column in `index.tsv`.
    section, label, short
        The heading that it stands under, its name, and the heading of a column.
    unit
        Behind the number; empty if it has none.
    digits
        Significant digits.
    bad
        The end that is bad: `high`, `low`, `both` or `none`.
    margin
        A number is no outlier for lying less than this beyond a quartile.
    output, field, column
        Where it is: see `data/measures.toml`.
    about
        What it tells, in plain words.
    index
        Whether the page of the index shows it.
    """

    key: str
    section: str
    label: str
    short: str
    unit: str
    digits: int
    bad: str
    margin: float
    output: str
    about: str
    field: str = ""
    column: str = ""
    index: bool = True

    def shown(self, value: float | None, *, unit: bool = False) -> str:
        """A value as pages write it; n/a where there is none.

        >>> measure("mean_fd").shown(0.12345), measure("mean_fd").shown(0.12345, unit=True)
        ('0.123', '0.123 mm')
        """
        if value is None:
            return "n/a"
        text = number(value, self.digits) if abs(value) < 1000 else f"{value:.0f}"
        return f"{text} {self.unit}" if unit and self.unit else text

    @property
    def heading(self) -> str:
        """The heading of a column, with the unit."""
        return f"{self.short} ({self.unit})" if self.unit else self.short


@dataclass(frozen=True)
class Range:
    """Which numbers are not marked: `low` or more, `high` or less; None: no bound.

    `strictly`: a number that equals `high` is marked.
    """

    low: float | None = None
    high: float | None = None
    strictly: bool = False

    def __contains__(self, value: float) -> bool:
        if self.low is not None and not value >= self.low:
            return False
        return self.high is None or (value < self.high if self.strictly else value <= self.high)

    def shown(self, one: Measure) -> str:
        """In words.

        >>> Range(0.5, 2.0).shown(measure("sd_robust")), Range(low=0.9).shown(measure("coverage"))
        ('0.5 to 2', 'at least 0.9')
        """
        low, high = (one.shown(bound, unit=True) for bound in (self.low, self.high))
        if self.low is None:
            return f"{'below' if self.strictly else 'at most'} {high}"
        return f"at least {low}" if self.high is None else f"{one.shown(self.low)} to {high}"


# --- the table -------------------------------------------------------------------------------


@cache
def _table() -> dict[str, Measure]:
    rows = tomllib.loads(read_text(DATA / "measures.toml"))
    return {key: Measure(key, **row) for key, row in rows.items()}


def static_measures() -> list[Measure]:
    """The measures that belong to no model, in the order of the table."""
    return [one for key, one in _table().items() if key not in ("r2_model", "r2_baseline")]


def reconstruction_key(model: str, mask_ratio: float, predictor: str = "model") -> str:
    """The key of a model's R², or of a baseline's on the same masks.

    Parameters
    ----------
    model
        Label of the model.
    mask_ratio
        Share of the values that was masked, above 0 and below 1.
    predictor
        `model`, or a baseline.

    Examples
    --------
    >>> reconstruction_key("brainlm13M", 0.2), reconstruction_key("brainlm13M", 0.2, "ridge")
    ('r2_brainlm13M_masked20', 'r2_brainlm13M_masked20_ridge')
    """
    masked = f"{100 * mask_ratio:.4g}".replace(".", "p")
    return f"r2_{model}_masked{masked}" + ("" if predictor == "model" else f"_{predictor}")


def measure(key: str) -> Measure:
    """The measure with a key, of the table or of a model.

    Parameters
    ----------
    key
        Such as `mean_fd`, or one that `reconstruction_key` made.

    Raises
    ------
    KeyError
        If there is none.

    Examples
    --------
    >>> measure("r2_brainlm13M_masked20_ridge_time").label
    'R² of ridge time, 20 % masked as for brainlm13M'
    """
    found = _PER_MODEL.fullmatch(key)
    if found is None:
        return _table()[key]
    model, masked, predictor = found[1], found[2].replace("p", "."), found[3]
    row = _table()["r2_baseline" if predictor else "r2_model"]
    words = {"model": model, "masked": masked, "predictor": (predictor or "").replace("_", " ")}
    label, short = (text.format(**words) for text in (row.label, row.short))
    return replace(row, key=key, label=label, short=short)


def is_measure(key: str) -> bool:
    """Whether a column of a table holds a measure."""
    return key in _table() or _PER_MODEL.fullmatch(key) is not None


def in_order(keys: Collection[str]) -> list[Measure]:
    """The measures with some keys, in the order in which pages show them.

    Parameters
    ----------
    keys
        Keys of measures, in any order.

    Returns
    -------
    list of Measure
        Those of the table; then, for each model, its own and those of the baselines.
    """
    static = [one for one in static_measures() if one.key in keys]
    return [*static, *(measure(key) for key in sorted(set(keys) - set(_table()), key=_place))]


def _place(key: str) -> tuple[str, float, int, str]:
    found = _PER_MODEL.fullmatch(key)
    if found is None:
        raise KeyError(key)
    predictor = found[3] or ""
    known = ("", *BASELINES)
    place = known.index(predictor) if predictor in known else len(known)
    return found[1], float(found[2].replace("p", ".")), place, predictor


# --- limits and outliers ---------------------------------------------------------------------


@cache
def fixed_limit(one: Measure, normalised: str = "T1w") -> Range | None:
    """The limit that a measure has in every folder, if it has one.

    Parameters
    ----------
    one
        The measure.
    normalised
        `T1w` or `boldref`: the image that was registered to the template; the limits of a
        registration without a T1w image are others.

    Examples
    --------
    >>> fixed_limit(measure("registration_contrast")), fixed_limit(measure("mean_fd"))
    (Range(low=3.5, high=None, strictly=False), None)
    """
    if one.key in REGISTRATION_COLUMNS:
        fields = {REGISTRATION_FIELDS[limit.name]: limit for limit in limits(normalised)}
        limit = fields[REGISTRATION_COLUMNS[one.key]]
        value = limit.value
        return Range(low=value) if limit.least else Range(high=value, strictly=True)
    references = {"sd_demeaned": UKB_SD_DEMEANED, "sd_robust": UKB_SD_ROBUST}
    if one.key in references:
        reference = references[one.key]
        return Range(reference / LARGEST_FACTOR, reference * LARGEST_FACTOR)
    return Range(low=Settings.min_coverage) if one.key == "coverage" else None


def fences(one: Measure, values: Sequence[float]) -> Range | None:
    """Beyond which a number is an outlier among others (Tukey's fences, on the side that is bad).

    Parameters
    ----------
    one
        The measure.
    values
        Of the recordings to compare with.

    Returns
    -------
    Range or None
        None where there are fewer than `LEAST_RECORDINGS`, or no side is bad.

    References
    ----------
    Tukey JW. Exploratory data analysis. Addison-Wesley, 1977.

    Examples
    --------
    >>> fences(measure("mean_fd"), [0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.2, 0.3, 0.3, 0.3])
    Range(low=None, high=0.5, strictly=False)
    """
    if len(values) < LEAST_RECORDINGS or one.bad == NONE:
        return None
    first, third = (float(x) for x in np.percentile(values, (25, 75)))
    reach = max(FENCE * (third - first), one.margin)
    # beyond float64's rounding, so that equal numbers of many recordings are within
    low, high = (float(f"{bound:.7g}") for bound in (first - reach, third + reach))
    return Range(None if one.bad == HIGH else low, None if one.bad == LOW else high)


class Compared(Protocol):
    """What the rule for outliers has to know of a recording."""

    @property
    def task(self) -> str:
        """Recordings of one task are compared with each other."""
        ...

    @property
    def finished(self) -> bool:
        """Whether others are compared with it."""
        ...

    @property
    def normalised(self) -> str:
        """`T1w` or `boldref`: the image that was registered to the template."""
        ...

    @property
    def values(self) -> Mapping[str, float]:
        """Its numbers, by the keys of measures."""
        ...


def all_fences(recordings: Sequence[Compared], one: Measure) -> dict[str, Range]:
    """The fences of every task that has enough recordings.

    Parameters
    ----------
    recordings
        Of a folder.
    one
        The measure.
    """
    by_task: dict[str, list[float]] = {}
    for recording in recordings:
        if recording.finished and one.key in recording.values:
            by_task.setdefault(recording.task, []).append(recording.values[one.key])
    found = {task: fences(one, values) for task, values in by_task.items()}
    return {task: fence for task, fence in sorted(found.items()) if fence is not None}


def outliers(recordings: Sequence[Compared], shown: Sequence[Measure]) -> list[dict[str, str]]:
    """Which numbers are marked, and why.

    Parameters
    ----------
    recordings
        All of a folder, since each is compared with the others of its task.
    shown
        The measures.

    Returns
    -------
    list of dict
        For each recording: key of the measure -> the reason, in words.
    """
    marked: list[dict[str, str]] = [{} for _ in recordings]
    for one in shown:
        of_task = all_fences(recordings, one)
        for recording, reasons in zip(recordings, marked, strict=True):
            value = recording.values.get(one.key)
            if value is None:
                continue
            limit, fence = fixed_limit(one, recording.normalised), of_task.get(recording.task)
            if limit is not None and value not in limit:
                reasons[one.key] = f"beyond the limit ({limit.shown(one)})"
            elif fence is not None and value not in fence:
                side = "high" if fence.high is not None and value > fence.high else "low"
                reasons[one.key] = f"unusually {side} (others: {fence.shown(one)})"
    return marked


def rule() -> str:
    """The rule for outliers, in words."""
    return (
        "A number is marked if it is beyond its fixed limit, or unusual: more than "
        f"{FENCE:g} interquartile ranges beyond the quartiles of the finished recordings of the "
        f"same task (Tukey's fences), on the side that is bad, where there are at least "
        f"{LEAST_RECORDINGS} of them; differences that are too small to matter are not marked. A "
        "mark is a reason to look at the recording, not to exclude it."
    )
