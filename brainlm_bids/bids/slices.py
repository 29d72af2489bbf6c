"""Slice timing of a run, as its sidecars record it: read, or refused with the reason in one line.

A table that is wrong (in milliseconds, of another run, of another number of slices) would shift
series by whole volumes without anybody noticing, so that it is looked at before it is used.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from brainlm_bids.errors import UserError
from brainlm_bids.notices import Kind, Notice, notice

# Times are written with few digits, and a slice may begin this share of a volume after its end.
ROUNDING = 1e-3
DIRECTIONS = ("i", "j", "k")


@dataclass(frozen=True)
class SliceTable:
    """When the slices of a volume were acquired.

    Attributes
    ----------
    axis
        0, 1 or 2: along which the slices are stacked in the stored array.
    times
        (S,) s from the beginning of a volume, in the order of that axis.
    """

    axis: int
    times: tuple[float, ...]

    @property
    def reference(self) -> float:
        """The middle between the first and the last slice, s: that of fMRIPrep."""
        first, last = min(self.times), max(self.times)
        return round(first + 0.5 * (last - first), 6)


def read_slice_table(metadata: Mapping[str, Any], shape: Sequence[int]) -> SliceTable:
    """Read SliceTiming and SliceEncodingDirection.

    Parameters
    ----------
    metadata
        The merged sidecars, with a repetition time in s.
    shape
        Of the image.

    Returns
    -------
    SliceTable
        The times in the order of the stored slices.

    Raises
    ------
    UserError
        What is wrong with the table, in a few words.

    Examples
    --------
    >>> fields = {"SliceTiming": [0.0, 0.5, 1.0], "SliceEncodingDirection": "k-"}
    >>> read_slice_table(fields | {"RepetitionTime": 2.0}, (64, 64, 3, 200))
    SliceTable(axis=2, times=(1.0, 0.5, 0.0))
    """
    if metadata.get("SliceTimingCorrected") is True:
        raise UserError("its sidecar says that slice timing was corrected before")
    direction = metadata.get("SliceEncodingDirection", "k")
    if direction not in (*DIRECTIONS, *(f"{one}-" for one in DIRECTIONS)):
        raise UserError(f"SliceEncodingDirection {direction!r} is none of i, j, k, i-, j-, k-")
    axis = DIRECTIONS.index(direction[0])
    times = _numbers(metadata.get("SliceTiming"))
    if len(times) != shape[axis]:
        raise UserError(
            f"SliceTiming has {len(times)} times for {shape[axis]} slices along {direction[0]}"
        )
    _check_times(times, float(metadata["RepetitionTime"]))
    # the first time is that of the slice with the largest index
    return SliceTable(axis, times[::-1] if direction.endswith("-") else times)


def _numbers(values: object) -> tuple[float, ...]:
    if values is None:
        raise UserError("there is no SliceTiming in its sidecars")
    if not isinstance(values, list) or not values:
        raise UserError("SliceTiming is not a list of times")
    for value in values:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise UserError(f"SliceTiming holds {value!r}, which is not a number")
        if not math.isfinite(value):
            raise UserError(f"SliceTiming holds {value}, which is not a time")
    return tuple(float(value) for value in values)


def _check_times(times: tuple[float, ...], tr: float) -> None:
    first, last = min(times), max(times)
    if first < 0:
        raise UserError(f"SliceTiming holds a negative time, {first:g}")
    if last > tr * (1 + ROUNDING):
        meant = ""
        if last / 1000 <= tr * (1 + ROUNDING):
            meant = f"; it is probably in milliseconds, and {last:g} ms are {last / 1000:g} s"
        raise UserError(
            f"SliceTiming holds {last:g} s, beyond the repetition time of {tr:g} s{meant}"
        )
    if first == last:
        raise UserError(f"SliceTiming holds the same time, {first:g}, for every slice")


def slice_timing(
    name: str, metadata: Mapping[str, Any], shape: Sequence[int]
) -> tuple[SliceTable | None, tuple[Notice, ...]]:
    """The slice timing of a run whose slices are to be corrected in time.

    Parameters
    ----------
    name
        Of the image.
    metadata, shape
        As of `read_slice_table`.

    Returns
    -------
    table
        None where it cannot be used.
    notices
        Why, in one line: the run is processed without the correction.
    """
    try:
        return read_slice_table(metadata, shape), ()
    except UserError as error:
        text = f"{name}: slice timing was not corrected: {error}."
        return None, (notice(Kind.SLICE_TIMING_NOT_CORRECTED, text),)


def start_of_volumes(metadata: Mapping[str, Any]) -> float:
    """Point in time that the volumes of a preprocessed run stand for, s after they begin.

    Parameters
    ----------
    metadata
        Its sidecar, with the StartTime that fMRIPrep records where it corrected slice timing.

    Returns
    -------
    float
        0 where none is recorded.

    Examples
    --------
    >>> start_of_volumes({"SliceTimingCorrected": True, "StartTime": 0.975})
    0.975
    """
    start = metadata.get("StartTime")
    if not metadata.get("SliceTimingCorrected") or not isinstance(start, int | float):
        return 0.0
    return float(start) if math.isfinite(start) else 0.0
