"""Baselines of reconstruction that see time, against closed forms."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import toeplitz
from sklearn.linear_model import Ridge as SklearnRidge

from benchmarks.baselines import direct, masks, recording
from brainlm_bids.model import baselines, kriging, ridge
from brainlm_bids.parcels.sampling import resample_series

Array = NDArray[np.float32]


def _autoregression(phi: float, shape: tuple[int, int], seed: int = 0) -> NDArray[np.float64]:
    """Independent rows of unit variance, x(t) = φ x(t − 1) + noise."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    series = noise.copy()
    for t in range(1, shape[1]):
        series[:, t] = phi * series[:, t - 1] + np.sqrt(1 - phi**2) * noise[:, t]
    return series


def _patches(shape: tuple[int, int], patch: int, share: float) -> NDArray[np.bool_]:
    """Visible values where patches of the first 200 volumes are hidden."""
    visible = np.ones(shape, dtype=bool)
    shown = np.random.default_rng(1).random((shape[0], 200 // patch)) > share
    visible[:, : shown.shape[1] * patch] = np.repeat(shown, patch, axis=1)
    return visible


def _r2(guess: Array, truth: Array, visible: NDArray[np.bool_]) -> float:
    x, y = truth[~visible].astype(float), guess[~visible].astype(float)
    return float(1 - np.square(x - y).sum() / np.square(x - x.mean()).sum())


def test_time_has_the_error_of_the_best_prediction_of_an_autoregression() -> None:
    phi, shape = 0.8, (80, 300)
    truth = _autoregression(phi, shape).astype(np.float32)
    for patch in (4, 20):
        visible = _patches(shape, patch, 0.2)
        expected = 0.0
        for seen in visible:  # exact conditional variances, of the hidden given the seen
            exact = toeplitz(phi ** np.arange(shape[1]))
            block = exact[np.ix_(~seen, seen)]
            gained = np.linalg.solve(exact[np.ix_(seen, seen)], block.T)
            expected += float(np.einsum("ij,ji", block, gained))
        expected /= (~visible).sum()
        assert _r2(baselines.time(truth, visible), truth, visible) == pytest.approx(
            expected, abs=0.04
        )
    # One missing value between its neighbours: 1 − (1 − φ²) / (1 + φ²)
    assert _r2_of_single_gaps(truth) == pytest.approx(1 - (1 - phi**2) / (1 + phi**2), abs=0.02)


def _r2_of_single_gaps(truth: Array) -> float:
    visible = np.ones(truth.shape, dtype=bool)
    visible[:, 100:300:10] = False
    return _r2(baselines.time(truth, visible), truth, visible)


@pytest.mark.parametrize(
    ("tr", "patch", "lowest", "highest"),
    [(0.735, 20, -0.02, 0.02), (2.0, 20, 0.2, 0.4), (3.0, 20, 0.35, 0.5), (3.0, 16, 0.4, 0.75)],
)
def test_time_predicts_white_noise_that_was_resampled(
    tr: float, patch: int, lowest: float, highest: float
) -> None:
    """Without any brain, brought from a longer repetition time, noise is predictable."""
    noise = np.random.default_rng(0).standard_normal((int(320 / tr), 300))
    truth = resample_series(noise, tr, 0.735).T.astype(np.float32)
    visible = _patches(truth.shape, patch, 0.2)
    made = baselines.predictions(truth, visible)
    assert lowest < _r2(made["time"], truth, visible) < highest
    assert abs(_r2(made["ridge"], truth, visible)) < 0.05  # which sees no neighbours in time
    assert _r2(made["ridge_time"], truth, visible) > lowest - 0.03


def test_ridge_time_is_better_than_either_where_both_tell() -> None:
    """Slow factors that parcels share, and slow noise of each parcel's own."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((80, 5)) @ _autoregression(0.9, (5, 500), 1)
    truth = (shared + 1.5 * _autoregression(0.95, (80, 500), 2) + 4).astype(np.float32)
    visible = _patches(truth.shape, 20, 0.3)
    score = {
        name: _r2(guess, truth, visible)
        for name, guess in baselines.predictions(truth, visible).items()
    }
    assert score["ridge_time"] > max(score["ridge"], score["time"]) + 0.05
    assert score["time"] > 0.2 and score["ridge"] > 0.2


ONE_BY_ONE: dict[str, Callable[[Array, NDArray[np.bool_]], Array]] = {
    "parcel_mean": baselines.parcel_mean,
    "time": baselines.time,
    "ridge": baselines.ridge,
    "ridge_time": baselines.ridge_time,
}


@pytest.mark.parametrize("share", [0.2, 0.75, 1.0])
def test_baselines_do_not_know_hidden_values(share: float) -> None:
    truth = _autoregression(0.7, (40, 260)).astype(np.float32)
    truth[3] = 0  # a parcel without data
    visible = _patches(truth.shape, 20, share)
    visible[5] = False  # a parcel that is never seen
    changed = np.where(visible, truth, truth + 100).astype(np.float32)
    before, after = baselines.predictions(truth, visible), baselines.predictions(changed, visible)
    assert tuple(before) == baselines.NAMES == tuple(ONE_BY_ONE)
    for name, guess in before.items():
        assert np.isfinite(guess).all() and guess.dtype == np.float32
        assert np.array_equal(guess, after[name])
        assert np.array_equal(guess, ONE_BY_ONE[name](truth, visible))
        if name != "parcel_mean":
            assert np.allclose(guess[visible], truth[visible], atol=1e-5)


def test_nothing_visible_and_nothing_hidden() -> None:
    truth = _autoregression(0.7, (20, 60)).astype(np.float32)
    for visible in (np.zeros(truth.shape, dtype=bool), np.ones(truth.shape, dtype=bool)):
        for guess in baselines.predictions(truth, visible).values():
            assert np.isfinite(guess).all()


@pytest.mark.parametrize("with_gaps", [False, True])
@pytest.mark.parametrize("n_hidden", [0, 3, 20])
def test_ridge_solves_the_same_system_by_both_ways(n_hidden: int, with_gaps: bool) -> None:
    """Through the inverse of all parcels, or directly, whichever is smaller."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((30, 50))
    covariance, penalty = values @ values.T / 50, 0.3
    seen = np.arange(30) >= n_hidden
    now = np.where(seen[:, None], rng.standard_normal((30, 4)), 0)
    system = covariance[np.ix_(seen, seen)] + penalty * np.eye(seen.sum())
    fit = ridge.Ridge(ridge.Covariance(covariance, with_gaps=with_gaps), penalty)
    [group] = ridge.grouped(np.repeat(seen[:, None], 4, axis=1))
    expected = covariance[np.ix_(~seen, seen)] @ np.linalg.solve(system, now[seen])
    if n_hidden:
        assert np.allclose(fit.predict(group, now), expected, atol=1e-10)
    errors = fit.left_out([group], now)[seen]
    for i in range(seen.sum()):
        others = np.arange(seen.sum()) != i
        part = np.linalg.solve(system[np.ix_(others, others)], now[seen][others])
        # the covariance with the others is without the penalty, which is on the diagonal
        assert np.allclose(errors[i], now[seen][i] - system[i, others] @ part, atol=1e-10)


@pytest.mark.parametrize("n_volumes", [60, 260])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.75, 0.9])
def test_shared_work_changes_nothing(share: float, n_volumes: int) -> None:
    """The same as systems that are set up and solved one by one, and nothing kept between them."""
    truth = recording(30, n_volumes)
    truth[3] = 0  # a parcel without data
    for visible in masks(30, n_volumes, share, start=max(n_volumes - 230, 0)):
        visible[5] &= np.arange(n_volumes) >= n_volumes // 3
        expected, found = direct(truth, visible), baselines.predictions(truth, visible)
        for name, values in expected.items():
            assert abs(found[name] - values.astype(np.float32)).max() < 1e-6, name
        mean = baselines._visible_mean(truth, visible)[:, None]
        centred = np.where(visible, truth - mean, 0)
        fit = ridge.fit_ridge(centred, visible)
        assert abs(mean + fit.guess - expected["ridge"]).max() < 1e-8


def test_ridge_is_that_of_scikit_learn_where_everything_is_known() -> None:
    """Hidden volumes are few here, and the others all visible."""
    values = recording(25, 400).astype(np.float64)
    values -= values.mean(axis=1, keepdims=True)
    fit = ridge.Ridge(ridge.Covariance(values @ values.T / 400, with_gaps=False), 0.7)
    seen = np.arange(25) > 5
    [group] = ridge.grouped(np.repeat(seen[:, None], 3, axis=1))
    now = np.where(seen[:, None], values[:, :3], 0)
    peer = SklearnRidge(alpha=0.7 * 400, fit_intercept=False).fit(values[seen].T, values[~seen].T)
    assert np.allclose(fit.predict(group, now), peer.predict(now[seen].T).T, atol=1e-8)


def test_the_autocorrelation_of_visible_values_is_that_of_the_process() -> None:
    truth = _autoregression(0.8, (300, 500))
    visible = _patches(truth.shape, 20, 0.5)
    found = kriging.autocorrelation(np.where(visible, truth, 99.0), visible)
    assert found[:10] == pytest.approx(0.8 ** np.arange(10), abs=0.03)
    assert np.linalg.eigvalsh(toeplitz(found)).min() > -1e-8
