"""Slices of the phantom that are acquired at times of their own."""

import copy
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brainlm_bids.errors import UserError
from brainlm_bids.phantom import write_phantom
from brainlm_bids.phantom.acquisition import SWITCHES, Acquisition
from brainlm_bids.phantom.courses import (
    haemodynamic_series,
    motion_parameters,
    noise_courses,
    parcel_series,
    rigid_matrices,
)
from brainlm_bids.phantom.field import Distortion, Field, PhaseEncoding
from brainlm_bids.phantom.head import subject_warp
from brainlm_bids.phantom.scene import Run, bold_affine, build_scene, volumes
from brainlm_bids.phantom.slices import slice_times, time_course

ALL = dict.fromkeys(SWITCHES, True)
QUIET = dict.fromkeys(SWITCHES, False)


def acquired(slices: str, multiband: int = 1, **switched: bool) -> Acquisition:
    switches = QUIET | switched
    return Acquisition(12, 2.0, 9.0, "high", 1, switches, slices=slices, multiband=multiband)


@pytest.mark.parametrize(
    "slices, multiband, order",
    [
        ("ascending", 1, [*range(14)]),
        ("interleaved", 1, [1, 3, 5, 7, 9, 11, 13, 0, 2, 4, 6, 8, 10, 12]),
        ("interleaved", 2, [0, 2, 4, 6, 1, 3, 5]),
        ("ascending", 7, [0, 1]),
    ],
)
def test_slice_times(slices: str, multiband: int, order: list[int]) -> None:
    acquisition = acquired(slices, multiband)
    times = slice_times(acquisition)
    assert acquisition.shape[2] == times.size == 14
    bands = times.reshape(multiband, -1)
    np.testing.assert_array_equal(bands, np.tile(bands[0], (multiband, 1)))
    np.testing.assert_array_equal(np.argsort(bands[0]), order)
    np.testing.assert_allclose(np.sort(bands[0]), np.arange(len(order)) * 2.0 / len(order))


@pytest.mark.parametrize("tr", [0.8, 2.0, 3.0])
def test_signals_are_functions_of_time(tr: float) -> None:
    def after(at: float) -> np.ndarray:
        return parcel_series(np.random.default_rng(3), 60, tr, at)

    # one TR later is the next volume, and what lies between is smooth
    np.testing.assert_allclose(after(tr)[:-1], after(0.0)[1:], atol=1e-9)
    starts, between = (
        haemodynamic_series(np.random.default_rng(3), 5, 60, tr, at=at) for at in (0, tr / 2)
    )
    lags = np.arange(60) - (np.arange(60)[:, None] + 0.5)
    np.testing.assert_allclose(between[20:40], (np.sinc(lags) @ starts)[20:40], atol=0.15)
    acquisition = Acquisition(60, tr, 3.5, "none", 1, ALL)

    def noise(at: float) -> np.ndarray:
        return np.array([*noise_courses(acquisition, np.random.default_rng(4), at).values()])

    np.testing.assert_allclose(noise(tr)[:, :-1], noise(0.0)[:, 1:], atol=1e-9)


@pytest.mark.parametrize("bent", [False, True])
def test_each_slice_is_one_of_a_volume_at_its_time(bent: bool) -> None:
    switched = dict.fromkeys(ALL, True) | {"spin_history": False, "thermal_noise": False}
    acquisition = acquired("interleaved", 2, **switched)
    affine = bold_affine(acquisition.shape, 9.0, np.array([0.0, -18.0, 22.0]))
    scene = build_scene(subject_warp(np.random.default_rng(1)), np.eye(4), affine, acquisition)
    changes = time_course(acquisition, np.zeros(3), np.random.default_rng(2))
    field = Field(np.array([[0.0, 50.0, 0.0]]), np.array([20.0]), np.array([30.0]))
    encoding = PhaseEncoding.from_bids("j-")
    distortion = Distortion.of(field, np.eye(4), affine, encoding) if bent else None

    def images(moment, moments=(), group=None) -> np.ndarray:
        run = Run(
            *(scene, affine, moment.matrices, moment.series, moment.courses, acquisition),
            distortion=distortion,
            moments=moments,
            group=group,
        )
        return np.stack([*volumes(run, np.random.default_rng(5))], axis=-1)

    sliced = images(changes.truth, changes.moments, changes.group)
    assert len(changes.moments) == 7
    for k in (0, 3, 6):
        at_once = images(changes.moments[k])
        for where in np.flatnonzero(changes.group == k):
            np.testing.assert_allclose(sliced[:, :, where], at_once[:, :, where], atol=0.02)
        other = np.abs(sliced - at_once)[:, :, changes.group != k]
        assert other.max() > 20


def test_truth_is_that_of_half_of_the_tr_and_slices_see_their_own() -> None:
    acquisition = acquired("ascending", 2, cardiac=True)
    changes = time_course(acquisition, np.zeros(3), np.random.default_rng(2))
    rng = np.random.default_rng(2)
    trace = motion_parameters(acquisition, rng)

    def series(at: float) -> np.ndarray:
        return parcel_series(copy.deepcopy(rng), 12, 2.0, at)

    np.testing.assert_array_equal(changes.truth.series, series(1.0))
    np.testing.assert_allclose(changes.parameters[:-1], (trace[1:] + trace[:-1]) / 2, atol=1e-12)
    for where, time in enumerate(slice_times(acquisition)):
        moment = changes.moments[changes.group[where]]
        np.testing.assert_allclose(moment.series, series(time), atol=1e-12)
        pose = rigid_matrices(trace[:-1] + time / 2 * np.diff(trace, axis=0), np.zeros(3))
        np.testing.assert_allclose(moment.matrices[:-1], pose, atol=1e-12)
    # without times of their own, the same draws, at the start
    plain = time_course(acquired("none", cardiac=True), np.zeros(3), np.random.default_rng(2))
    np.testing.assert_array_equal(plain.truth.series, series(0.0))
    np.testing.assert_array_equal(plain.parameters, trace)
    assert not plain.moments


def test_sidecars(tmp_path: Path) -> None:
    small = {"n_subjects": 1, "n_volumes": 3, "voxel": 9.0, "motion": "high", "tr": 3.0}
    data = write_phantom(tmp_path / "data", **small, slices="ascending", multiband=7)
    said = json.loads(next(data.rglob("*_bold.json")).read_text())
    assert said["SliceTiming"] == [0.0, 1.5] * 7 and said["MultibandAccelerationFactor"] == 7
    for name in ("*_desc-truth_timeseries.json", "*_desc-truth_motion.json"):
        assert json.loads(next(data.rglob(name)).read_text())["StartTime"] == 1.5
    noise = pd.read_csv(next(data.rglob("*_desc-noise_timeseries.tsv")), sep="\t")
    np.testing.assert_allclose(noise["time"], [1.5, 4.5, 7.5])


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"slices": "random"}, "none of none, ascending"),
        ({"multiband": 2}, "needs an order"),
        ({"slices": "ascending", "multiband": 5}, "36 slices cannot be acquired in 5"),
    ],
)
def test_bad_requests(tmp_path: Path, wrong: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        write_phantom(tmp_path / "out", **wrong)
