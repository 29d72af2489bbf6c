"""Embeddings of stretches: aligned with the patches, and from the tokens of their own volumes."""

import numpy as np
import pytest

from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.embedding import embed
from brainlm_bids.model.states import embed_stretches, patches_within, window_start
from tests.small_models import TR, recording, small_brainlm, small_vitmae


@pytest.fixture(params=[small_brainlm, small_vitmae], ids=["brainlm", "vitmae"], scope="module")
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return request.param()  # type: ignore[no-any-return]


def volumes_of(model: LoadedModel, columns: np.ndarray) -> list[int]:
    """The volumes of a window that some patches show."""
    patch, margin = model.network.patch, model.network.margin
    every = (np.arange(c * patch - margin, (c + 1) * patch - margin) for c in columns)
    return [v for part in every for v in part.tolist() if 0 <= v < model.window]


@pytest.mark.parametrize("first", [0, 7, 61, 150, 333, 400])
@pytest.mark.parametrize("n_patches", [1, 2, 3])
def test_a_stretch_of_whole_patches_is_exactly_its_patches(
    model: LoadedModel, first: int, n_patches: int
) -> None:
    patch, n_volumes = model.network.patch, 490
    end = first + n_patches * patch
    start = window_start(model, first, end, n_volumes)
    assert 0 <= start <= n_volumes - model.window
    columns, share = patches_within(model, first - start, end - start)
    shown = [start + volume for volume in volumes_of(model, columns)]
    assert start <= first and end <= start + model.window
    if (first - start + model.network.margin) % patch == 0:
        assert shown == list(range(first, end)) and share == 1.0
    else:  # only at the very edge of a recording
        assert first < patch or end > n_volumes - patch
        assert share > 0.6


def test_a_stretch_shorter_than_a_patch_has_the_patch_that_it_begins(model: LoadedModel) -> None:
    patch = model.network.patch
    start = window_start(model, 200, 203, 490)
    columns, share = patches_within(model, 200 - start, 203 - start)
    assert [start + v for v in volumes_of(model, columns)] == list(range(200, 200 + patch))
    assert share == pytest.approx(3 / patch)


def test_tokens_are_those_of_the_window_that_was_cut(model: LoadedModel) -> None:
    series, coords = recording(300)
    patch = model.network.patch
    stretches = np.array([[120, 120 + 2 * patch], [40, 40 + patch]])
    found = embed_stretches(model, series, coords, stretches, seed=5)
    for row, (first, end) in enumerate(stretches):
        start = window_start(model, first, end, 300)
        window = series[start : start + model.window]
        alone = embed(model, window, coords, tr=TR, seed=5, tokens=True)
        columns, _ = patches_within(model, first - start, end - start)
        assert alone.tokens is not None
        expected = alone.tokens[0][:, columns].reshape(-1, alone.tokens.shape[-1])
        np.testing.assert_allclose(found.tokens[row], expected, atol=2e-3, rtol=2e-3)
        np.testing.assert_allclose(found.cls[row], alone.vectors[0], atol=1e-5, rtol=1e-4)
        mean = found.tokens[row].astype(np.float32).mean(axis=0)
        np.testing.assert_array_equal(found.mean[row], mean)


def test_padding_of_a_short_recording_is_no_token_of_a_stretch(model: LoadedModel) -> None:
    series, coords = recording(90)
    found = embed_stretches(model, series, coords, [[60, 90], [0, 30]], seed=0)
    assert all(len(tokens) and np.isfinite(tokens).all() for tokens in found.tokens)


def test_a_stretch_beyond_the_series_is_refused(model: LoadedModel) -> None:
    series, coords = recording(220)
    for wrong in ([[200, 230]], [[50, 50]], [[-1, 20]]):
        with pytest.raises(ValueError, match="within the 220 volumes"):
            embed_stretches(model, series, coords, wrong, seed=0)
