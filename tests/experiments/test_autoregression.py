"""Baselines of forecasts against closed forms: processes whose coefficients are known."""

import numpy as np
import pytest
from scipy.linalg import solve_toeplitz

from brainlm_bids.experiments.autoregression import (
    FORECASTERS,
    autoregressive,
    fit_autoregression,
    persistence,
    vector_autoregressive,
)

Array = np.ndarray


def simulated(coefficients: list[float], n: int, seed: int, n_parcels: int = 1) -> Array:
    rng = np.random.default_rng(seed)
    order = len(coefficients)
    values = np.zeros((n + 200, n_parcels))
    noise = rng.standard_normal(values.shape)
    for t in range(order, len(values)):
        past = values[t - order : t][::-1]
        values[t] = np.tensordot(coefficients, past, axes=1) + noise[t]
    return values[200:]


def test_a_known_process_is_recovered_and_its_forecast_decays_as_phi_to_the_h() -> None:
    phi = 0.8
    series = 3.0 + simulated([phi], 20_000, seed=0)
    model = fit_autoregression(series, order=1)
    assert model.coefficients[0, 0] == pytest.approx(phi, abs=0.01)
    assert model.variance[0] == pytest.approx(1.0, abs=0.03)
    forecast = autoregressive(series, 20, order=1)[:, 0]
    fitted, mean = model.coefficients[0, 0], model.mean[0]
    expected = mean + fitted ** np.arange(1, 21) * (series[-1, 0] - mean)
    assert np.allclose(forecast, expected, atol=1e-12)


def test_levinson_durbin_solves_the_yule_walker_equations() -> None:
    series = simulated([0.5, -0.3, 0.2], 400, seed=1, n_parcels=5)
    model = fit_autoregression(series, order=4)
    centred = series - series.mean(axis=0)
    for parcel in range(5):
        x = centred[:, parcel]
        lags = np.array([(x[k:] * x[: len(x) - k]).sum() for k in range(5)])
        expected = solve_toeplitz(lags[:4], lags[1:])
        assert np.allclose(model.coefficients[parcel], expected, atol=1e-10)


def test_the_order_is_that_of_the_process() -> None:
    series = simulated([0.5, -0.6], 4000, seed=2, n_parcels=40)
    orders = fit_autoregression(series).order
    # AIC overfits at times, and never misses a coefficient of this size
    assert orders.min() >= 2 and np.median(orders) == 2
    noise = fit_autoregression(np.random.default_rng(3).standard_normal((4000, 40))).order
    assert np.median(noise) == 0


def test_a_sinusoid_goes_on() -> None:
    time = np.arange(2000)
    wave = np.sin(2 * np.pi * time / 40)[:, None]
    found = autoregressive(wave[:1980], 20, order=2)
    # the biased autocovariance shrinks by about lag / T, so not exactly
    assert np.abs(found - wave[1980:]).max() < 0.08
    assert np.abs(persistence(wave[:1980], 20) - wave[1980:]).max() > 0.9


def test_the_vector_model_finds_who_drives_whom() -> None:
    """Parcel 1 repeats parcel 0 one volume later: only a model of both can know it."""
    rng = np.random.default_rng(4)
    drive = rng.standard_normal(401)
    series = np.stack([drive[1:], drive[:-1]], axis=1)  # second(t) = first(t − 1)
    seen = series[:399]
    found = vector_autoregressive(seen, 1)[0]
    assert found[1] == pytest.approx(series[399, 1], abs=0.1)
    assert abs(autoregressive(seen, 1)[0, 1] - series[399, 1]) > 0.3


def test_the_vector_model_does_not_explode() -> None:
    growing = (1.05 ** np.arange(100))[:, None] * np.array([[1.0, -2.0]])
    found = vector_autoregressive(growing, 100)
    assert np.abs(found).max() < 3 * np.abs(growing).max()


@pytest.mark.parametrize("name", list(FORECASTERS))
def test_forecasts_of_all_kinds(name: str) -> None:
    rng = np.random.default_rng(5)
    seen = rng.standard_normal((27, 424))
    seen[:, 3] = 0  # a parcel without data stays so
    found = FORECASTERS[name](seen, 20)
    assert found.shape == (20, 424) and np.isfinite(found).all()
    assert np.abs(found[:, 3]).max() < 1e-9
    expected = {
        "median": np.tile(np.median(seen, axis=0), (20, 1)),
        "persistence": np.tile(seen[-1], (20, 1)),
    }.get(name)
    if expected is not None:
        assert np.array_equal(found, expected)
