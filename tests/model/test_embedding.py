"""Embeddings: determinism, token orders, padding, pooling, what is said of single parcels."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from small_models import SMALL_IMAGE, TR, P, recording

from brainlm_bids.errors import UserError
from brainlm_bids.model.checkpoint import (
    LoadedModel,
    build_network,
    load_model,
    network_over,
    random_network,
)
from brainlm_bids.model.config import ARCHITECTURES, VITMAE_DIVISOR
from brainlm_bids.model.embedding import embed
from brainlm_bids.resources.labels import model_label


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
    series, coords = recording(450)
    first = embed(model, series, coords, tr=TR, seed=5)
    again = embed(model, series, coords, tr=TR, seed=5)
    assert first.vectors.tobytes() == again.vectors.tobytes()
    assert first.vectors.shape == (3, 32) and first.vectors.dtype == np.float32
    assert np.allclose(first.onset, np.array([0, 200, 250]) * TR)
    assert np.allclose(first.duration, 200 * TR)
    assert first.n_padded == 0
    alone = embed(model, series[200:400], coords, tr=TR, seed=5)
    assert np.array_equal(first.vectors[1], alone.vectors[0])
    other = embed(model, series, coords, tr=TR, seed=6)
    assert np.array_equal(first.vectors, other.vectors) == (model.family == "vitmae")
    assert first.token_order_seed == (5 if model.family == "brainlm" else None)
    louder = embed(model, series * 2, coords, tr=TR, seed=5)
    gain = embed(model, series, coords, tr=TR, seed=5, input_gain=2.0)
    assert np.allclose(louder.vectors, gain.vectors, atol=1e-6) and not np.allclose(
        gain.vectors, first.vectors
    )


def test_rows_of_the_image_are_sorted_stably_by_y(image: LoadedModel) -> None:
    series, coords = recording(200)
    found = embed(image, series, coords, tr=TR, seed=0).vectors
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
        assert np.abs(found.vectors[0] - cls).max() < 1e-5


def test_padded_patches_are_not_seen(tiny: LoadedModel) -> None:
    series, coords = recording(60)
    found = embed(tiny, series, coords, tr=TR, seed=5)
    assert found.n_padded == 140
    assert np.allclose(found.duration, [60 * TR])
    # The same with a network whose window is 60 volumes: then nothing is padded.
    config = replace(tiny.config, num_timepoints_per_voxel=60)
    short = replace(tiny, network=network_over(config, tiny.module))
    assert np.allclose(
        found.vectors, embed(short, series, coords, tr=TR, seed=5).vectors, atol=1e-6
    )


def test_image_models_see_the_mirror_image_of_a_short_run(image: LoadedModel) -> None:
    series, coords = recording(120)
    found = embed(image, series, coords, tr=TR, seed=5)
    whole = np.concatenate([series, series[-2:-82:-1]])
    expected = embed(image, whole, coords, tr=TR, seed=5).vectors
    assert found.n_padded == 80 and whole.shape == (200, P)
    assert np.array_equal(found.vectors, expected)
    zeros = np.concatenate([series, np.zeros((80, P))])
    assert not np.allclose(found.vectors, embed(image, zeros, coords, tr=TR, seed=5).vectors)


def test_token_orders_are_averaged_and_their_spread_is_told(tiny: LoadedModel) -> None:
    series, coords = recording(230)
    both = embed(tiny, series, coords, tr=TR, seed=5, token_orders=2)
    first = embed(tiny, series, coords, tr=TR, seed=5)
    assert first.spread is None and both.spread is not None
    second = 2 * both.vectors.astype(float) - first.vectors
    # Two points lie half their distance from their mean.
    half = np.linalg.norm(first.vectors - second, axis=1) / 2
    assert both.spread == pytest.approx(half / np.linalg.norm(both.vectors, axis=1), rel=1e-3)
    assert (both.spread > 1e-3).all()
    with pytest.raises(UserError, match="token-orders 0"):
        embed(tiny, series, coords, tr=TR, seed=5, token_orders=0)


def test_the_image_model_does_not_depend_on_an_order(image: LoadedModel) -> None:
    series, coords = recording(200)
    found = embed(image, series, coords, tr=TR, seed=5, token_orders=3)
    assert found.spread is None and found.token_order_seed is None


def test_pooling_and_tokens(model: LoadedModel) -> None:
    series, coords = recording(70)
    call = {"tr": TR, "seed": 5, "tokens": True, "parcels": model.network.rows_are_parcels}
    mean = embed(model, series, coords, pooling="mean", **call)  # type: ignore[arg-type]
    largest = embed(model, series, coords, pooling="max", **call)  # type: ignore[arg-type]
    tokens = mean.tokens
    assert tokens is not None and tokens.dtype == np.float16
    if model.family == "brainlm":
        assert tokens.shape == (1, P, 10, 32)
        seen = np.isfinite(tokens).all(axis=-1)
        assert seen[:, :, :4].all() and not seen[:, :, 4:].any()  # 70 volumes fill 4 patches
        assert mean.parcels is not None
        assert np.allclose(np.nanmean(tokens[0].astype(float), axis=1), mean.parcels, atol=5e-3)
    else:
        assert tokens.shape == (1, 27, 27, 32) and mean.parcels is None
    values = tokens.astype(float).reshape(1, -1, 32)
    assert np.allclose(np.nanmean(values, axis=1), mean.vectors, atol=5e-3)
    assert np.allclose(np.nanmax(values, axis=1), largest.vectors, atol=5e-3)
    with pytest.raises(UserError, match="pooling"):
        embed(model, series, coords, tr=TR, seed=5, pooling="median")


def test_windows_overlap_by_the_stride(model: LoadedModel) -> None:
    series, coords = recording(450)
    found = embed(model, series, coords, tr=TR, seed=5, stride=100)
    assert np.allclose(found.onset, np.array([0, 100, 200, 250]) * TR)
    alone = embed(model, series[100:300], coords, tr=TR, seed=5)
    assert np.array_equal(found.vectors[1], alone.vectors[0])
    assert np.allclose(found.recording, found.vectors.mean(axis=0), atol=1e-6)
    with pytest.raises(UserError, match="window-stride 201"):
        embed(model, series, coords, tr=TR, seed=5, stride=201)


def test_parcel_tokens_come_back_in_order(tiny: LoadedModel) -> None:
    """Without the convolution order is nothing: parcels of equal input get equal tokens."""
    tiny = replace(tiny, network=copy.deepcopy(tiny.network))
    for name, weight in tiny.module.named_parameters():
        if name.endswith("conv.weight"):
            weight.zero_()
    series, coords = recording(200)
    half = P // 2
    series[:, half:], coords[half:] = series[:, :half], coords[:half]
    features = embed(tiny, series, coords, tr=TR, seed=5, parcels=True).parcels
    assert features is not None
    distance = cdist(features[:half], features[half:])
    assert distance.diagonal().max() < 1e-4
    np.fill_diagonal(distance, np.inf)
    assert distance.min() > 1e-2


def test_attention_between_parcels_against_the_whole_matrix(
    tiny: LoadedModel, image: LoadedModel
) -> None:
    series, coords = recording(30)  # 2 time patches with data, 8 of padding
    found = embed(tiny, series, coords, tr=TR, seed=5, attention=True).attention
    assert found is not None and found.shape == (P, P)
    # The same with tokens in the same order, all queries at once, sorted back by hand.
    order = np.random.default_rng(5).permutation(2 * P)
    patches = np.arange(10 * P).reshape(P, 10)[:, :2].ravel()
    keep = torch.from_numpy(patches[order]).unsqueeze(0)
    signal = np.zeros((1, P, 200), dtype=np.float32)
    signal[0, :, :30] = series.T
    xyz = torch.from_numpy(coords.astype(np.float32)).unsqueeze(0)
    encoder = tiny.module.vit
    with torch.inference_mode():
        _, last_input = encoder(torch.from_numpy(signal), xyz, keep)
        layer = encoder.layers[-1]
        maps = layer.probabilities(last_input, 0, 2 * P + 1)  # type: ignore[operator]
        whole = maps[0].mean(0)[1:, 1:].numpy()
    back = np.argsort(order)
    expected = whole[back][:, back].reshape(P, 2, P, 2).mean(axis=(1, 3))
    assert np.abs(found - expected).max() < 1e-7
    assert expected.std() > 1e-6  # not simply uniform
    with pytest.raises(UserError, match="single parcels"):
        embed(image, series, coords, tr=TR, seed=5, attention=True)


def test_sizes_of_the_released_models() -> None:
    """Parameters as counted in the original, without the layer that the 13M never uses."""
    unused = 768 * 512 + 768
    for name, n in (("13M", 13_429_292 - unused), ("111M", 112_590_080), ("650M", 658_337_868)):
        module = build_network(ARCHITECTURES[name]).module  # no memory is taken
        assert sum(weight.numel() for weight in module.parameters()) == n, name


@pytest.mark.slow
@pytest.mark.parametrize(("name", "width"), [("13M", 512), ("111M", 768), ("650M", 1280)])
def test_full_size_models_run(name: str, width: int) -> None:
    series, coords = recording(120)
    found = embed(load_model(f"random:{name}", seed=1), series, coords, tr=TR, seed=1)
    assert found.vectors.shape == (1, width) and np.isfinite(found.vectors).all()


def test_the_image_models_of_patch_14_hide_the_published_columns() -> None:
    """As in the original: predicting the last 20 % hides columns 19 … 22, that is 51 volumes."""
    config = replace(SMALL_IMAGE, image_size=(434, 434), patch_size=14)
    module = random_network(config, seed=0).module
    with torch.inference_mode():
        output = module.predict_last(torch.zeros(1, P, 200), 0.2)  # type: ignore[operator]
    hidden = output.mask_token.view(31, 31)
    assert hidden[:, 19:23].all() and int(hidden.sum()) == 4 * 31
    assert (output.mask[0].sum(dim=1) == 51).all()


def test_bad_input_is_said_in_one_line(tiny: LoadedModel) -> None:
    series, coords = recording(60)
    broken = series.copy()
    broken[3, 7] = np.nan
    cases = [
        (broken, coords, "NaN"),
        (np.where(series > 2, np.inf, series), coords, "infinite"),
        (series[:, :423], coords, "expects 424 parcels"),
        (series[:19], coords, "19 volumes"),
        (series, coords[:423], "coordinates"),
        (np.zeros_like(series), coords, "zero throughout"),
    ]
    for bad, where, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            embed(tiny, bad, where, tr=TR, seed=0)
        assert "\n" not in str(caught.value)


def test_a_model_of_other_parcels_is_said(shared: Path) -> None:
    micro = load_model(shared / "golden" / "brainlm_micro", seed=0)
    series, coords = recording(60)
    with pytest.raises(UserError, match="expects 16 parcels"):
        embed(micro, series, coords, tr=TR, seed=0)
