"""Reconstructions and baselines: what is hidden stays hidden, padding, scores."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from small_models import P, recording
from threadpoolctl import threadpool_info, threadpool_limits

from brainlm_bids.errors import UserError
from brainlm_bids.model import baselines
from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.masking import disjoint_orders, n_passes
from brainlm_bids.model.network import Prediction
from brainlm_bids.model.reconstruction import reconstruct, scores
from brainlm_bids.model.ridge import fit_ridge


def test_masks_are_disjoint_and_cover_everything() -> None:
    for ratio, passes in ((0.2, 5), (0.75, 2), (0.3, 4), (0.5, 2)):
        orders = disjoint_orders(4240, ratio, 0)
        assert len(orders) == n_passes(ratio) == passes
        hidden = [set(order[n_keep:].tolist()) for order, n_keep in orders]
        assert set().union(*hidden) == set(range(4240))
        for i in range(passes - 2):  # the last may be filled up
            assert not hidden[i] & hidden[i + 1]


def test_a_prediction_does_not_know_its_value(model: LoadedModel) -> None:
    series, coords = recording(200)
    call = {"mask_ratio": 0.5, "seed": 5, "with_baselines": False}
    before = reconstruct(model, series, coords, **call).series  # type: ignore[arg-type]
    changed = series.copy()
    changed[7, 100] += 50
    after = reconstruct(model, changed, coords, **call).series  # type: ignore[arg-type]
    assert before[7, 100] == after[7, 100]
    assert np.isfinite(before).all()
    # Everything in the same hidden patch is blind to it too, what is hidden in another pass is not.
    assert 0.2 < np.mean(before != after) < 0.8


def test_padding_does_not_show_what_is_hidden(model: LoadedModel) -> None:
    """A mirror image would: the copy of a hidden value can be in a patch that is visible."""
    series, coords = recording(110)
    call = {"mask_ratio": 0.5, "seed": 5, "with_baselines": False}
    before = reconstruct(model, series, coords, **call).series  # type: ignore[arg-type]
    for volume in (25, 60, 100):
        changed = series.copy()
        changed[volume, 100] += 50
        after = reconstruct(model, changed, coords, **call).series  # type: ignore[arg-type]
        assert before[volume, 100] == after[volume, 100]


class _Spy:
    """Replaces the network: its prediction is the truth where visible, 9 where hidden."""

    def __init__(self, real: Callable[..., Any]) -> None:
        self.real, self.n_calls = real, 0

    def __call__(self, signal: Any, coords: Any, masking: Any) -> Prediction:
        self.n_calls += 1
        _, hidden = self.real(signal, coords, masking)
        return Prediction(torch.where(hidden > 0, 9.0, signal), hidden)


def test_every_value_comes_from_a_pass_that_hid_it(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = _Spy(model.network.predict)
    monkeypatch.setattr(model.network, "predict", spy)
    series, coords = recording(250)
    call = {"mask_ratio": 0.4, "seed": 5, "input_gain": 3.0, "with_baselines": False}
    found = reconstruct(model, series, coords, **call)  # type: ignore[arg-type]
    assert spy.n_calls == 2 * 3  # two windows, ceil(1 / 0.4) passes
    assert np.all(found.series == np.float32(9) / np.float32(3))
    assert found.metrics["model"]["mse"] == pytest.approx(np.mean((3 - series) ** 2))
    assert found.metrics["model"]["mae"] == pytest.approx(np.mean(np.abs(3 - series)))
    assert np.isnan(found.metrics["model"]["pearson_r"])  # a constant has no correlation


def test_what_is_always_visible_is_never_predicted(model: LoadedModel) -> None:
    series, coords = recording(100)
    found = reconstruct(
        model, series, coords, mask_ratio=0.5, seed=5, always_visible=[3], with_baselines=False
    )
    missing = np.isnan(found.series)
    columns = np.flatnonzero(missing.all(axis=0))
    assert missing.any(axis=0).sum() == len(columns)
    if model.family == "brainlm":
        assert columns.tolist() == [3]
    else:  # 4 rows of padding, then patches of 16 parcels from posterior to anterior
        rows = np.argsort(coords[:, 1], kind="stable")
        place = (int(np.flatnonzero(rows == 3)[0]) + 4) // 16
        patch = rows[max(16 * place - 4, 0) : 16 * place + 12]
        assert set(columns) == set(patch.tolist())
    assert list(found.metrics) == ["model"]
    with pytest.raises(UserError, match="nothing is left"):
        reconstruct(model, series, coords, mask_ratio=0.5, seed=5, always_visible=range(P))


def test_scores_against_scikit_learn() -> None:
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

    rng = np.random.default_rng(0)
    truth = rng.normal(size=(50, 4))
    guess = truth + rng.normal(size=(50, 4))
    guess[:, 3] = np.nan
    guess[::2, 2] = np.nan
    found = scores(truth, guess)
    for column, rows in ((0, slice(None)), (2, slice(1, None, 2))):
        x, y = truth[rows, column], guess[rows, column]
        assert found["mse"][column] == pytest.approx(mean_squared_error(x, y))
        assert found["mae"][column] == pytest.approx(mean_absolute_error(x, y))
        assert found["r2"][column] == pytest.approx(r2_score(x, y))
        assert found["pearson_r"][column] == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert all(np.isnan(values[3]) for values in found.values())


def test_the_earlier_window_counts_where_windows_overlap(model: LoadedModel) -> None:
    series, coords = recording(250)
    call = {"mask_ratio": 0.5, "seed": 5, "with_baselines": False}
    both = reconstruct(model, series, coords, **call)  # type: ignore[arg-type]
    first = reconstruct(model, series[:200], coords, **call)  # type: ignore[arg-type]
    assert both.n_windows == 2
    assert np.array_equal(both.series[:200], first.series)


def test_padding_and_empty_parcels_do_not_count(model: LoadedModel) -> None:
    series, coords = recording(90)
    series += np.random.default_rng(1).normal(size=P) * 3  # parcels differ in their mean
    series[:, [4, 200]] = 0
    found = reconstruct(model, series, coords, mask_ratio=0.5, seed=5)
    assert found.n_padded == 110 and found.series.shape == (90, P)
    assert np.flatnonzero(np.isnan(found.parcel_metrics["model"]["r2"])).tolist() == [4, 200]
    data = np.delete(np.arange(P), [4, 200])
    truth, guess = series[:, data].ravel(), found.series[:, data].astype(float).ravel()
    model_metrics = found.metrics["model"]
    assert model_metrics["mse"] == pytest.approx(np.mean((truth - guess) ** 2))
    assert model_metrics["r2"] == pytest.approx(1 - np.mean((truth - guess) ** 2) / truth.var())
    assert model_metrics["pearson_r"] == pytest.approx(np.corrcoef(truth, guess)[0, 1])
    r = np.corrcoef(series[:, 9], found.series[:, 9])[0, 1]
    assert found.parcel_metrics["model"]["pearson_r"][9] == pytest.approx(r, abs=1e-6)
    # Parcels' means explain 9 of 10 parts of the variance, less what few values tell of them.
    assert 0.75 < found.metrics["parcel_mean"]["r2"] < 0.95


def test_the_parcel_mean_uses_visible_values_only() -> None:
    truth = np.array([[1.0, 3.0, 100.0], [5.0, 7.0, 9.0]], dtype=np.float32)
    visible = np.array([[True, True, False], [False, False, False]])
    found = baselines.parcel_mean(truth, visible)
    assert found.tolist() == [[2, 2, 2], [2, 2, 2]]


def test_ridge_finds_what_visible_parcels_tell() -> None:
    rng = np.random.default_rng(0)
    factors, noise = rng.normal(size=(5, 200)), rng.normal(size=(60, 200))
    truth = (rng.normal(size=(60, 5)) @ factors + 0.5 * noise + 3).astype(np.float32)
    visible = np.repeat(rng.random((60, 10)) > 0.2, 20, axis=1)
    guess = baselines.ridge(truth, visible)
    error = (guess - truth)[~visible]
    assert np.mean(error**2) < 0.5  # noise alone leaves 0.25; the parcels' variance is about 5
    hidden_changed = np.where(visible, truth, truth + 100).astype(np.float32)
    assert np.array_equal(baselines.ridge(hidden_changed, visible), guess)
    # Nothing to learn: no better, and hardly worse, than the mean.
    alone = baselines.ridge(noise.astype(np.float32), visible)
    assert np.mean((alone - noise)[~visible] ** 2) < 1.15
    nothing = baselines.ridge(truth, np.zeros_like(visible))
    assert np.isfinite(nothing).all()


def test_ridge_learns_from_the_rest_of_the_recording() -> None:
    """With 9 of 10 values of a window hidden, only other volumes tell how parcels go together."""
    rng = np.random.default_rng(0)
    factors, noise = rng.normal(size=(4, 600)), rng.normal(size=(60, 600))
    truth = (rng.normal(size=(60, 4)) @ factors + 0.5 * noise).astype(np.float32)
    visible = np.ones(truth.shape, dtype=bool)
    visible[:, :200] = np.repeat(rng.random((60, 10)) > 0.8, 20, axis=1)
    hidden = ~visible
    error = np.mean((baselines.ridge(truth, visible) - truth)[hidden] ** 2)
    alone = baselines.ridge(truth[:, :200], visible[:, :200])
    error_alone = np.mean((alone - truth[:, :200])[hidden[:, :200]] ** 2)
    assert error < 0.5 * error_alone
    assert error < 0.3 * truth[hidden].var()


def test_all_baselines_are_reported(image: LoadedModel) -> None:
    series, coords = recording(60)
    found = reconstruct(image, series, coords, mask_ratio=0.75, seed=5)
    assert list(found.metrics) == ["model", "parcel_mean", "time", "ridge", "ridge_time"]
    assert np.isfinite(list(found.metrics["ridge"].values())).all()
    # Independent noise: nothing to learn for anybody, and the ridge must not make it up.
    assert -0.2 < found.metrics["ridge"]["r2"] < 0.1
    with pytest.raises(UserError, match="mask-ratio"):
        reconstruct(image, series, coords, mask_ratio=1.5, seed=0)


def test_baselines_do_not_depend_on_the_number_of_threads(image: LoadedModel) -> None:
    series, coords = recording(260)
    before, found = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            with threadpool_limits(n_threads):
                found.append(reconstruct(image, series, coords, mask_ratio=0.5, seed=5).metrics)
                blas = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
                assert {pool["num_threads"] for pool in blas} == {n_threads}
    finally:
        torch.set_num_threads(before)
    one, two = ({name: table[name] for name in baselines.NAMES} for table in found)
    assert one == two


def test_ties_between_penalties_are_not_decided_by_rounding() -> None:
    """One parcel is visible at a time: its error does not depend on the penalty."""
    noise = np.random.default_rng(0).standard_normal((6, 60))
    visible = np.arange(6)[:, None] == np.arange(60) // 10
    centred = np.where(visible, noise, 0)
    variance = np.square(noise[visible]).mean()
    assert fit_ridge(centred, visible).regression.penalty == pytest.approx(variance)
