"""The summary of a run: numbers that are known in advance."""

import numpy as np
import pytest

from brainlm_bids.parcels.steps import Scaled
from brainlm_bids.preproc import steps


def _scaled(series: np.ndarray, filled: np.ndarray) -> Scaled:
    return Scaled(series, filled, np.zeros(series.shape[1]), np.ones(series.shape[1]), 2.0)


def test_numbers_of_a_run_are_those_of_its_good_steady_volumes() -> None:
    rng = np.random.default_rng(0)
    denoised = 100 + rng.normal(size=(12, 4))
    denoised[:2] = denoised[5] = np.nan
    denoised[:, 3] = np.nan
    used = np.delete(denoised[2:], 3, axis=0)[:, :3]
    reasons = np.full(12, "", dtype="<U20")
    reasons[5] = "zero"
    parameters = np.zeros((12, 6))
    parameters[4, :3], parameters[5] = [0.3, 0.4, 0], 99.0
    parameters[9, 4] = np.pi / 180
    motion = steps.Motion(2, parameters, reasons=reasons)
    fd = np.r_[np.nan, 9.0, 9.0, np.full(9, 0.25)]
    confounds = {"framewise_displacement": fd, "motion_outlier00": np.eye(12)[4]}
    robust = _scaled(np.array([[1.0, 7.0], [-1.0, 7.0]]), np.array([False, True]))

    found = steps.summarise(denoised, robust, motion, confounds=confounds)

    np.testing.assert_allclose(found.connectivity[:3, :3], np.corrcoef(used.T))
    assert np.isnan(found.connectivity[3]).all()
    assert found.missing.tolist() == [False, False, False, True]
    assert found.demeaned_sd == pytest.approx((used - used.mean(axis=0)).std())
    assert found.robust_sd == 1.0
    assert found.movement is not None and found.mixing is None
    moved = found.movement
    assert (moved.mean_fd, moved.n_outliers) == (0.25, 1)
    assert (moved.translation, moved.rotation) == pytest.approx((0.5, 1.0))


def test_components_that_are_noise_become_confounds() -> None:
    mixing = np.arange(8.0).reshape(4, 2)
    components = steps.Components(mixing, np.zeros((2, 3), np.float32), np.zeros(2), True, 5, 1)
    noise = np.array([False, True])
    numbers = np.zeros(2)
    decisions = steps.Decisions(*(numbers,) * 5, noise=noise, reason=np.array(["", "edge"]))
    reasons = np.array(["", "", "", "zero", ""])
    motion = steps.Motion(1, reasons=reasons)

    found = steps.summarise(
        np.ones((5, 2)),
        _scaled(np.ones((4, 2)), np.array([True, True])),
        motion,
        components=components,
        decisions=decisions,
    )

    assert list(found.confounds) == ["aroma_motion_02"]
    assert found.confounds["aroma_motion_02"].tolist() == [0, 1, 3, 5, 7]
    assert found.mixing is not None
    np.testing.assert_array_equal(found.mixing[:, 0], [np.nan, 0, 2, np.nan, 6])
    assert found.robust_sd is None and found.movement is None
