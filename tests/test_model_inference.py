"""Embeddings and reconstructions: determinism, what is hidden stays hidden, padding, metrics."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from brainlm_bids.errors import UserError
from brainlm_bids.model import baselines, inference
from brainlm_bids.model.checkpoint import LoadedModel, build_module, load_model, random_module
from brainlm_bids.model.config import (
    ARCHITECTURES,
    VITMAE_DIVISOR,
    BrainLMConfig,
    ViTMAEConfig,
)
from brainlm_bids.model.inference import attention_profile, embed, parcel_features, reconstruct
from brainlm_bids.model.labels import model_label
from brainlm_bids.model.masking import disjoint_orders, n_passes

TR = 0.735
P = 424
SMALL_IMAGE = ViTMAEConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    decoder_hidden_size=32,
    decoder_num_hidden_layers=1,
    decoder_num_attention_heads=2,
    decoder_intermediate_size=64,
    image_size=(432, 432),
    patch_size=16,
    num_channels=3,
    layer_norm_eps=1e-12,
    mask_ratio=0.75,
)


@pytest.fixture(scope="module")
def tiny() -> LoadedModel:
    return _louder(load_model("random:tiny", seed=3))


@pytest.fixture(scope="module")
def image() -> LoadedModel:
    module = random_module(SMALL_IMAGE, seed=3).eval().requires_grad_(False)
    return _louder(
        LoadedModel(module, "vitmae", SMALL_IMAGE, "small", None, True, P, 200, 32, "cpu")
    )


@pytest.fixture(params=["brainlm", "vitmae"])
def model(request: pytest.FixtureRequest, tiny: LoadedModel, image: LoadedModel) -> LoadedModel:
    return tiny if request.param == "brainlm" else image


def _louder(model: LoadedModel) -> LoadedModel:
    """Weights large enough that a changed input shows in every output."""
    with torch.no_grad():
        for name, weight in model.module.named_parameters():
            if weight.ndim >= 2 and "pos" not in name:
                weight.mul_(8)
    return model


def _recording(n: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    coords = 2 * rng.integers(-30, 30, size=(P, 3)).astype(np.float64)
    return rng.normal(size=(n, P)), coords


def test_random_tiny_loads_and_is_seeded() -> None:
    one, same, other = (load_model("random:tiny", seed=s) for s in (1, 1, 2))
    assert one.untrained and one.sha256 is None and one.family == "brainlm"
    assert (one.n_parcels, one.window, one.embedding_dim) == (424, 200, 32)
    weights = [m.module.state_dict() for m in (one, same, other)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not all(torch.equal(weights[0][key], weights[2][key]) for key in weights[0])
    with pytest.raises(UserError, match="no such architecture"):
        load_model("random:huge", seed=0)


def test_labels() -> None:
    assert model_label("111M") == "brainlm111M"
    assert model_label("random:tiny") == "randomtiny"


def test_embeddings_repeat_and_have_windows(model: LoadedModel) -> None:
    series, coords = _recording(450)
    first = embed(model, series, coords, tr=TR, seed=5)
    again = embed(model, series, coords, tr=TR, seed=5)
    assert first.cls.tobytes() == again.cls.tobytes()
    assert first.cls.shape == (3, 32) and first.cls.dtype == np.float32
    assert np.allclose(first.onset, np.array([0, 200, 250]) * TR)
    assert np.allclose(first.duration, 200 * TR)
    assert first.n_padded == 0
    alone = embed(model, series[200:400], coords, tr=TR, seed=5)
    assert np.array_equal(first.cls[1], alone.cls[0])
    other = embed(model, series, coords, tr=TR, seed=6)
    assert np.array_equal(first.cls, other.cls) == (model.family == "vitmae")
    assert first.token_order_seed == (5 if model.family == "brainlm" else None)
    louder = embed(model, series * 2, coords, tr=TR, seed=5)
    gain = embed(model, series, coords, tr=TR, seed=5, input_gain=2.0)
    assert np.allclose(louder.cls, gain.cls, atol=1e-6) and not np.allclose(gain.cls, first.cls)


def test_rows_of_the_image_are_sorted_stably_by_y(image: LoadedModel) -> None:
    series, coords = _recording(200)
    found = embed(image, series, coords, tr=TR, seed=0).cls
    rows = sorted(range(P), key=lambda parcel: coords[parcel, 1])  # Python sorts stably
    picture = torch.from_numpy(series.T[rows].astype(np.float32)).unsqueeze(0) / VITMAE_DIVISOR
    keep = torch.arange(27 * 27).unsqueeze(0)
    with torch.inference_mode():
        latent, _ = image.module.vit(image.module.pad(picture), keep)  # type: ignore[operator]
    assert np.allclose(found, latent[:, 0].numpy(), atol=1e-6)


def test_the_golden_embedding_of_the_image_model(shared: Path) -> None:
    folder = shared / "golden" / "vitmae_tiny_p16"
    inputs = np.load(folder / "inputs.npz")
    coords = np.zeros((P, 3))
    coords[inputs["y_order"], 1] = np.arange(P)
    expected = np.load(folder / "out_auto00_identity.npz")["cls"]
    golden = load_model(folder, seed=0)
    for signal, cls in zip(inputs["signal"], expected, strict=True):
        found = embed(golden, signal.T, coords, tr=TR, seed=0)
        assert np.abs(found.cls[0] - cls).max() < 1e-5


def test_padded_patches_are_not_seen(tiny: LoadedModel) -> None:
    series, coords = _recording(60)
    found = embed(tiny, series, coords, tr=TR, seed=5)
    assert found.n_padded == 140
    assert np.allclose(found.duration, [60 * TR])
    # The same with a network whose window is 60 volumes: then nothing is padded.
    assert isinstance(tiny.config, BrainLMConfig)
    config = replace(tiny.config, num_timepoints_per_voxel=60)
    short = replace(tiny, config=config, window=60)
    assert np.allclose(found.cls, embed(short, series, coords, tr=TR, seed=5).cls, atol=1e-6)


def test_masks_are_disjoint_and_cover_everything() -> None:
    for ratio, passes in ((0.2, 5), (0.75, 2), (0.3, 4), (0.5, 2)):
        orders = disjoint_orders(4240, ratio, 0)
        assert len(orders) == n_passes(ratio) == passes
        hidden = [set(order[n_keep:].tolist()) for order, n_keep in orders]
        assert set().union(*hidden) == set(range(4240))
        for i in range(passes - 2):  # the last may be filled up
            assert not hidden[i] & hidden[i + 1]


def test_a_prediction_does_not_know_its_value(model: LoadedModel) -> None:
    series, coords = _recording(200)
    call = {"tr": TR, "mask_ratio": 0.5, "seed": 5}
    before = reconstruct(model, series, coords, **call).series  # type: ignore[arg-type]
    changed = series.copy()
    changed[7, 100] += 50
    after = reconstruct(model, changed, coords, **call).series  # type: ignore[arg-type]
    assert before[7, 100] == after[7, 100]
    assert np.isfinite(before).all()
    # Everything in the same hidden patch is blind to it too, what is hidden in another pass is not.
    assert 0.2 < np.mean(before != after) < 0.8


class _Spy:
    """Replaces the network: its prediction is the truth where visible, 9 where hidden."""

    def __init__(self, model: LoadedModel, real: Callable[..., Any]) -> None:
        self.real, self.n_calls = real, 0

    def __call__(self, model: Any, run: Any, signal: Any, masking: Any) -> Any:
        self.n_calls += 1
        _, hidden = self.real(model, run, signal, masking)
        return np.where(hidden, np.float32(9), signal[0].numpy()), hidden


def test_every_value_comes_from_a_pass_that_hid_it(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = _Spy(model, inference._forward)
    monkeypatch.setattr(inference, "_forward", spy)
    series, coords = _recording(250)
    found = reconstruct(model, series, coords, tr=TR, mask_ratio=0.4, seed=5, input_gain=3.0)
    assert spy.n_calls == 2 * 3  # two windows, ceil(1 / 0.4) passes
    assert np.all(found.series == np.float32(9) / np.float32(3))
    assert found.metrics["model"]["mse"] == pytest.approx(np.mean((3 - series) ** 2))
    assert found.metrics["model"]["mae"] == pytest.approx(np.mean(np.abs(3 - series)))
    assert np.isnan(found.metrics["model"]["pearson_r"])  # a constant has no correlation


def test_the_earlier_window_counts_where_windows_overlap(model: LoadedModel) -> None:
    series, coords = _recording(250)
    call = {"tr": TR, "mask_ratio": 0.5, "seed": 5}
    both = reconstruct(model, series, coords, **call)  # type: ignore[arg-type]
    first = reconstruct(model, series[:200], coords, **call)  # type: ignore[arg-type]
    assert both.n_windows == 2
    assert np.array_equal(both.series[:200], first.series)


def test_padding_and_empty_parcels_do_not_count(model: LoadedModel) -> None:
    series, coords = _recording(90)
    series += np.random.default_rng(1).normal(size=P) * 3  # parcels differ in their mean
    series[:, [4, 200]] = 0
    found = reconstruct(model, series, coords, tr=TR, mask_ratio=0.5, seed=5)
    assert found.n_padded == 110 and found.series.shape == (90, P)
    assert np.flatnonzero(np.isnan(found.parcel_r2)).tolist() == [4, 200]
    data = np.delete(np.arange(P), [4, 200])
    truth, guess = series[:, data].ravel(), found.series[:, data].astype(float).ravel()
    model_metrics = found.metrics["model"]
    assert model_metrics["mse"] == pytest.approx(np.mean((truth - guess) ** 2))
    assert model_metrics["r2"] == pytest.approx(1 - np.mean((truth - guess) ** 2) / truth.var())
    assert model_metrics["pearson_r"] == pytest.approx(np.corrcoef(truth, guess)[0, 1])
    r = np.corrcoef(series[:, 9], found.series[:, 9])[0, 1]
    assert found.parcel_r[9] == pytest.approx(r, abs=1e-6)
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


def test_ridge_is_reported_when_asked_for(image: LoadedModel) -> None:
    series, coords = _recording(60)
    found = reconstruct(image, series, coords, tr=TR, mask_ratio=0.75, seed=5, ridge=True)
    assert list(found.metrics) == ["model", "parcel_mean", "ridge"]
    assert np.isfinite(list(found.metrics["ridge"].values())).all()


def test_parcel_features_of_both_families(model: LoadedModel) -> None:
    series, coords = _recording(90)
    features = parcel_features(model, series, coords, tr=TR, seed=5)
    width = 32 if model.family == "brainlm" else P
    assert features.shape == (P, width) and np.isfinite(features).all()
    if model.family == "vitmae":
        given = parcel_features(model, series, coords, tr=TR, seed=5, reconstruction=series)
        assert np.allclose(given, np.corrcoef(series.T))


def test_parcel_tokens_come_back_in_order(tiny: LoadedModel) -> None:
    """Without the convolution order is nothing: parcels of equal input get equal tokens."""
    tiny = replace(tiny, module=copy.deepcopy(tiny.module))
    for name, weight in tiny.module.named_parameters():
        if name.endswith("conv.weight"):
            weight.zero_()
    series, coords = _recording(200)
    half = P // 2
    series[:, half:], coords[half:] = series[:, :half], coords[:half]
    features = parcel_features(tiny, series, coords, tr=TR, seed=5)
    distance = cdist(features[:half], features[half:])
    assert distance.diagonal().max() < 1e-4
    np.fill_diagonal(distance, np.inf)
    assert distance.min() > 1e-2


def test_attention_between_parcels_against_the_whole_matrix(
    tiny: LoadedModel, image: LoadedModel
) -> None:
    series, coords = _recording(30)  # 2 time patches with data, 8 of padding
    found = attention_profile(tiny, series, coords, tr=TR, seed=5)
    assert found.shape == (P, P)
    # The same with tokens in the same order, all queries at once, sorted back by hand.
    order = np.random.default_rng(5).permutation(2 * P)
    patches = np.arange(10 * P).reshape(P, 10)[:, :2].ravel()
    keep = torch.from_numpy(patches[order]).unsqueeze(0)
    signal = np.zeros((1, P, 200), dtype=np.float32)
    signal[0, :, :30] = series.T
    xyz = torch.from_numpy(coords.astype(np.float32)).unsqueeze(0)
    encoder = tiny.module.vit
    with torch.inference_mode():
        _, states = encoder(torch.from_numpy(signal), xyz, keep)
        layer = encoder.layers[-1]
        maps = layer.probabilities(states[-2], 0, 2 * P + 1)  # type: ignore[operator]
        whole = maps[0].mean(0)[1:, 1:].numpy()
    back = np.argsort(order)
    expected = whole[back][:, back].reshape(P, 2, P, 2).mean(axis=(1, 3))
    assert np.abs(found - expected).max() < 1e-7
    assert expected.std() > 1e-6  # not simply uniform
    with pytest.raises(UserError, match="single parcels"):
        attention_profile(image, series, coords, tr=TR, seed=5)


def test_sizes_of_the_released_models() -> None:
    """Parameters as counted in the original (BRAINLM.md 1a, 1b), without the 13M's unused layer."""
    unused = 768 * 512 + 768
    for name, n in (("13M", 13_429_292 - unused), ("111M", 112_590_080), ("650M", 658_337_868)):
        module = build_module(ARCHITECTURES[name])  # no memory is taken
        assert sum(weight.numel() for weight in module.parameters()) == n, name


@pytest.mark.slow
@pytest.mark.parametrize(("name", "width"), [("13M", 512), ("111M", 768), ("650M", 1280)])
def test_full_size_models_run(name: str, width: int) -> None:
    series, coords = _recording(120)
    found = embed(load_model(f"random:{name}", seed=1), series, coords, tr=TR, seed=1)
    assert found.cls.shape == (1, width) and np.isfinite(found.cls).all()


def test_the_image_models_of_patch_14_hide_the_published_columns() -> None:
    """BRAINLM.md 1b: predicting the last 20 % hides columns 19 … 22, that is 51 volumes."""
    config = replace(SMALL_IMAGE, image_size=(434, 434), patch_size=14)
    module = random_module(config, seed=0)
    with torch.inference_mode():
        output = module.predict_last(torch.zeros(1, P, 200), 0.2)  # type: ignore[operator]
    hidden = output.mask_token.view(31, 31)
    assert hidden[:, 19:23].all() and int(hidden.sum()) == 4 * 31
    assert (output.mask[0].sum(dim=1) == 51).all()


def test_bad_input_is_said_in_one_line(tiny: LoadedModel) -> None:
    series, coords = _recording(60)
    broken = series.copy()
    broken[3, 7] = np.nan
    cases = [
        (broken, coords, "NaN"),
        (np.where(series > 2, np.inf, series), coords, "infinite"),
        (series[:, :423], coords, "expects 424 parcels"),
        (series[:19], coords, "19 volumes"),
        (series, coords[:423], "coordinates"),
    ]
    for bad, where, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            embed(tiny, bad, where, tr=TR, seed=0)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="mask-ratio"):
        reconstruct(tiny, series, coords, tr=TR, mask_ratio=1.5, seed=0)


def test_a_model_of_other_parcels_is_said(shared: Path) -> None:
    micro = load_model(shared / "golden" / "brainlm_micro", seed=0)
    series, coords = _recording(60)
    with pytest.raises(UserError, match="expects 16 parcels"):
        embed(micro, series, coords, tr=TR, seed=0)
