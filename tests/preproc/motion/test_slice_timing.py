"""Slices at one point in time, against a truth in continuous time."""

import tracemalloc

import numpy as np
import pytest

from benchmarks import accuracy_slices
from brainlm_bids.preproc.motion.slice_timing import correct_slice_timing

TIMES = np.array([0.0, 1.0, 0.5, 1.5])


def noise(n_volumes: int = 80, seed: int = 0) -> np.ndarray:
    bold = np.random.default_rng(seed).normal(1000, 10, (3, 2, 4, n_volumes))
    return bold.astype(np.float32)


def corrected(bold: np.ndarray, **options: object) -> np.ndarray:
    result = bold.copy()
    correct_slice_timing(result, TIMES, 2.0, reference=0.75, **options)
    return result


@pytest.mark.parametrize("order", accuracy_slices.ORDERS)
@pytest.mark.parametrize("tr", [2.0, 3.0])
def test_corrected_slices_show_the_middle_of_the_volume(tr: float, order: str) -> None:
    agreement = accuracy_slices.agreement
    ours = agreement(accuracy_slices._ours, tr, order, seed=4, n_voxels=12)
    assert np.median(ours) >= 0.9995
    assert ours.min() > agreement(accuracy_slices._none, tr, order, 4, 12).max() - 0.01
    if tr == 3.0:  # near the Nyquist frequency
        cubic = agreement(accuracy_slices._cubic, tr, order, 4, 12)
        assert 1 - np.median(ours) < 0.2 * (1 - np.median(cubic))


def test_bad_volumes_do_not_ring_into_the_others() -> None:
    bold = noise()
    good = np.ones(80, dtype=bool)
    good[[20, 21, 50]] = False
    expected = corrected(bold, good=good)
    for spoilt in (0.0, 8000.0, np.nan, np.inf):
        worse = bold.copy()
        worse[..., ~good] = spoilt
        np.testing.assert_array_equal(corrected(worse, good=good)[..., good], expected[..., good])
    # one that is not known as bad does ring
    worse = bold.copy()
    worse[..., 50] = 8000
    assert np.abs(corrected(worse) - corrected(bold))[..., 55].max() > 30


def test_volumes_before_the_steady_state_stay_out_of_it() -> None:
    bold = noise()
    bold[..., :4] = 3000
    found = corrected(bold, first=4)
    np.testing.assert_array_equal(found[..., :4], bold[..., :4])
    np.testing.assert_array_equal(found[..., 4:], corrected(bold[..., 4:]))
    assert found[..., 4:].min() > 900 and found[..., 4:].max() < 1100


def test_a_trend_and_a_level_are_kept() -> None:
    bold = np.full((1, 1, 4, 60), 1000.0)
    assert np.abs(corrected(bold) - 1000).max() < 1e-9
    trend = bold + np.arange(60)
    inner = slice(13, -13)
    late = np.array([0.75 - time for time in TIMES])[:, None] / 2
    found = (corrected(trend) - trend)[0, 0, :, inner]
    assert np.abs(found - late).max() < 1e-3


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_may_lie_along_any_axis(axis: int) -> None:
    bold = noise()
    turned = np.moveaxis(bold, 2, axis).copy(order="F")
    correct_slice_timing(turned, TIMES, 2.0, reference=0.75, axis=axis)
    np.testing.assert_array_equal(np.moveaxis(turned, axis, 2), corrected(bold))


def test_a_hole_stays_in_its_voxel() -> None:
    bold = noise()
    bold[1, 1, 1, 40] = np.nan
    found = np.isfinite(corrected(bold)).all(axis=3)
    assert not found[1, 1, 1]
    assert found.sum() == found.size - 1


def test_a_run_is_held_once() -> None:
    bold = np.asfortranarray(np.ones((32, 32, 20, 120), dtype=np.float32))
    tracemalloc.start()
    correct_slice_timing(bold, np.linspace(0, 1.9, 20), 2.0, reference=0.95)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.3 * bold.nbytes


def test_times_that_do_not_belong_to_the_slices_are_refused() -> None:
    with pytest.raises(ValueError, match="2 slices along axis 1"):
        correct_slice_timing(noise(), TIMES, 2.0, reference=0.75, axis=1)
    with pytest.raises(ValueError, match="positive"):
        correct_slice_timing(noise(), TIMES, 0.0, reference=0.75)


def test_slices_come_before_motion() -> None:
    found = accuracy_slices.orders("slow", 3.0, seed=2, n_volumes=60)
    left = {name: 1 - r for name, r in found.items()}
    assert left["slices first"] < 0.7 * left["slices last"] < 0.7 * left["not corrected"]
