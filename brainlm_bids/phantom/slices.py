"""When a scanner acquires the slices of a volume, and what is different at each of those times."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from brainlm_bids.phantom.acquisition import Acquisition
from brainlm_bids.phantom.courses import (
    motion_parameters,
    noise_courses,
    parcel_series,
    rigid_matrices,
)


@dataclass(frozen=True)
class Moment:
    """The head and its signals at one time of every volume.

    matrices (T, 4, 4): from the reference pose; series (T, 424); courses (T,) of the noise by name.
    """

    matrices: np.ndarray
    series: np.ndarray
    courses: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class TimeCourse:
    """What changes in a run: at its reference times, and at those of its slices.

    parameters (T, 6) in mm and rad and `truth` are those of the reference times. group (Z,) has for
    each slice its place in `moments`; both are empty where slices have no times of their own.
    """

    parameters: np.ndarray
    truth: Moment
    moments: tuple[Moment, ...]
    group: np.ndarray


def slice_times(acquisition: Acquisition) -> np.ndarray:
    """Times (Z,) in s after the start of a volume; ValueError if bands do not divide the slices.

    Slice s is acquired together with every slice that is a whole number of bands away. With
    "interleaved", every second one comes first: the even ones if their number is odd (0, 2, 4, …),
    the odd ones if it is even (1, 3, …), as Siemens has it.
    """
    n_slices, bands = acquisition.shape[2], acquisition.multiband
    if n_slices % bands:
        raise ValueError(f"{n_slices} slices cannot be acquired in {bands} bands of the same size")
    n_shots = n_slices // bands
    order = np.arange(n_shots)
    if acquisition.slices == "interleaved":
        first = (n_shots + 1) % 2
        order = np.concatenate([order[first::2], order[1 - first :: 2]])
    times = np.empty(n_shots)
    times[order] = np.arange(n_shots) * acquisition.tr / n_shots
    return np.tile(times, bands)


def time_course(
    acquisition: Acquisition, centre: np.ndarray, rng: np.random.Generator
) -> TimeCourse:
    """Draw motion, series and noise; the same for a state of rng whatever the times of the slices.

    centre (3,) mm: of rotation.
    """
    trace = motion_parameters(acquisition, rng)
    signals = copy.deepcopy(rng)

    def moment(at: float, rng: np.random.Generator) -> tuple[np.ndarray, Moment]:
        parameters = _between(trace, at / acquisition.tr)
        series = parcel_series(rng, acquisition.n_volumes, acquisition.tr, at)
        courses = noise_courses(acquisition, rng, at)
        return parameters, Moment(rigid_matrices(parameters, centre), series, courses)

    parameters, truth = moment(acquisition.reference_time, rng)
    if acquisition.slices == "none":
        return TimeCourse(parameters, truth, (), np.empty(0, int))
    times, group = np.unique(slice_times(acquisition), return_inverse=True)
    moments = tuple(moment(float(at), copy.deepcopy(signals))[1] for at in times)
    return TimeCourse(parameters, truth, moments, group)


def _between(trace: np.ndarray, fraction: float) -> np.ndarray:
    """Motion (T, 6) a fraction of a TR after the starts: straight on, at rest after the last."""
    following = np.vstack([trace[1:], trace[-1:]])
    return trace if fraction == 0 else np.asarray(trace + fraction * (following - trace))
