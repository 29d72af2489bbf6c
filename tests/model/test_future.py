"""Forecasts and perturbations: what is seen, what is not, and where it lands."""

from pathlib import Path

import numpy as np
import pytest
from small_models import TR, P, recording

from brainlm_bids.errors import UserError
from brainlm_bids.experiments.perturbation import change_parcels, perturb
from brainlm_bids.model.checkpoint import LoadedModel, load_model
from brainlm_bids.model.future import forecast, forecast_span


def test_spans_of_the_released_shapes(tiny: LoadedModel, image: LoadedModel) -> None:
    assert forecast_span(tiny, 20) == (20, 180)
    assert forecast_span(tiny, 30) == (40, 160)
    # as in the original: predicting the last 40 volumes hides 44 of them.
    assert forecast_span(image, 40) == (44, 156)
    for n in (0, 200, 190):
        with pytest.raises(UserError, match="forecast"):
            forecast_span(tiny, n)


def test_a_forecast_is_the_original_codes(shared: Path) -> None:
    """The golden case that hides the last 40 of 200 volumes: the first 156 are seen."""
    folder = shared / "golden" / "vitmae_tiny_p16"
    inputs = np.load(folder / "inputs.npz")
    expected = np.load(folder / "out_predict_last20.npz")["logits"] * 5.6430855
    coords = np.zeros((P, 3))
    coords[inputs["y_order"], 1] = np.arange(P)
    golden = load_model(folder, seed=0)
    for signal, logits in zip(inputs["signal"], expected, strict=True):
        found = forecast(golden, signal.T[:156], coords, n_volumes=40, seed=0)
        picture = logits.reshape(-1, *logits.shape[-2:])[0]
        assert np.abs(found.T[inputs["y_order"]] - picture[:, 156:196]).max() < 1e-4


def test_only_the_last_volumes_count(model: LoadedModel) -> None:
    series, coords = recording(300)
    context = forecast_span(model, 20)[1]
    found = forecast(model, series, coords, n_volumes=20, seed=5)
    assert found.shape == (20, P) and np.isfinite(found).all()
    changed = series.copy()
    changed[: 300 - context] += 10
    assert np.array_equal(forecast(model, changed, coords, n_volumes=20, seed=5), found)
    changed[300 - context] += 10
    assert not np.allclose(forecast(model, changed, coords, n_volumes=20, seed=5), found)
    gained = forecast(model, series / 2, coords, n_volumes=20, seed=5, input_gain=2.0)
    assert np.allclose(gained * 2, found, atol=1e-5)


def test_a_short_series_is_enough(model: LoadedModel) -> None:
    series, coords = recording(47)
    found = forecast(model, series, coords, n_volumes=10, seed=5)
    assert found.shape == (10, P) and np.isfinite(found).all()
    changed = series.copy()
    changed[-1] += 10
    assert not np.allclose(forecast(model, changed, coords, n_volumes=10, seed=5), found)


def test_changed_parcels() -> None:
    series = np.arange(6.0).reshape(3, 2)
    assert change_parcels(series, [1], value=0)[:, 1].tolist() == [0, 0, 0]
    assert change_parcels(series, [0], scale=-1)[:, 0].tolist() == [0, -2, -4]
    assert series[1, 0] == 2
    with pytest.raises(UserError, match="indices 0 … 1"):
        change_parcels(series, [2], value=0)


def test_a_perturbation_changes_what_it_should(model: LoadedModel) -> None:
    series, coords = recording(60)
    parcels = [3, 40]
    call = {"parcels": parcels, "tr": TR, "seed": 5, "mask_ratio": 0.5}
    same = perturb(model, series, series, coords, **call)  # type: ignore[arg-type]
    assert not same.embedding.any() and not np.nansum(np.abs(same.reconstruction))
    changed = change_parcels(series, parcels, scale=5.0)
    found = perturb(model, series, changed, coords, **call)  # type: ignore[arg-type]
    assert np.abs(found.embedding).max() > 1e-4
    untouched = np.setdiff1d(np.arange(P), parcels)
    missing = np.isnan(found.reconstruction).all(axis=0)
    assert missing[parcels].all()
    assert missing[untouched].sum() == 0 or model.family == "vitmae"
    rest = found.reconstruction[:, ~missing]
    assert np.isfinite(rest).all() and np.abs(rest).max() > 1e-4
