"""The attentive probe and the MLP on series find what was planted, and nothing else."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from planted_bags import halves, linear_of_mean, marked_tokens, names, r2, series

from brainlm_bids.cohort.attentive import (
    AttentiveOptions,
    AttentivePooling,
    attentive_predictions,
)
from brainlm_bids.cohort.bags import Bags
from brainlm_bids.cohort.probe_training import Scale
from brainlm_bids.cohort.series_mlp import mlp_predictions
from brainlm_bids.errors import UserError

QUICK = AttentiveOptions(learning_rates=(1e-2,), weight_decays=(0.01,), epochs=3, patience=3)


def test_folded_keys_are_the_attention_with_explicit_keys_and_values() -> None:
    """torch's multi-head attention with one query, over standardised tokens, some hidden."""
    torch.manual_seed(0)
    width, n_heads, n_tokens = 192, 3, 30
    attention = torch.nn.MultiheadAttention(width, n_heads, batch_first=True, bias=True)
    torch.nn.init.normal_(attention.in_proj_bias)  # the bias of the keys must not matter
    with torch.no_grad():
        attention.in_proj_bias[2 * width :] = 0
        attention.out_proj.weight.copy_(torch.eye(width))
    query = torch.randn(1, 1, width)
    tokens = 5 + 3 * torch.randn(4, n_tokens, width)
    seen = torch.rand(4, n_tokens) > 0.3
    scale = Scale(tokens.mean((0, 1)), tokens.std((0, 1)))
    standard = (tokens - scale.mean) / scale.sd
    expected, _ = attention(
        query.expand(4, 1, width), standard, standard, key_padding_mask=~seen, need_weights=False
    )
    of_query, of_keys, of_values = attention.in_proj_weight.chunk(3)
    heads = (query[0, 0] @ of_query.T + attention.in_proj_bias[:width]).view(n_heads, 64)
    folded = torch.einsum("hk,hkd->dh", heads, of_keys.view(n_heads, 64, width)) / 8
    values = of_values.view(n_heads, 64, width).transpose(1, 2)
    member = {"query": folded, "value": values}
    other = {"query": torch.randn_like(folded), "value": torch.randn_like(values)}
    found = AttentivePooling(64).pooled([other, member], tokens, seen, scale)[1]
    torch.testing.assert_close(found, expected[:, 0], atol=1e-5, rtol=1e-5)


def test_a_target_in_few_tokens_is_found_where_the_mean_token_is_blind() -> None:
    bags, target = marked_tokens(150, seed=1)
    split = halves(150)
    truth = target[split[1]]
    found = attentive_predictions(bags, target, names(150), split, seed=0)
    assert r2(found, truth) > 0.5
    assert r2(linear_of_mean(bags, target, split), truth) < 0.1
    shuffled = np.random.default_rng(3).permutation(target)
    chance = attentive_predictions(bags, shuffled, names(150), split, seed=0)
    assert abs(r2(chance, shuffled[split[1]])) < 0.1


def test_classes_in_few_tokens_are_found() -> None:
    bags, target = marked_tokens(150, seed=2, classes=True)
    split = halves(150)
    truth = target[split[1]]
    found = attentive_predictions(bags, target, names(150), split, n_classes=2, seed=0)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    assert (found.argmax(axis=1) == truth).mean() > 0.8
    linear = linear_of_mean(bags, target, split) > 0.5
    assert abs((linear[:, 0] == truth).mean() - 0.5) < 0.2


@pytest.mark.parametrize("kind", ["amplitude", "together"])
def test_the_mlp_finds_what_the_mean_of_a_series_does_not_hold(kind: str) -> None:
    bags, target = series(90, seed=0, kind=kind)
    split = halves(90)
    found = mlp_predictions(bags, target, names(90), split, seed=0)
    assert r2(found, target[split[1]]) > 0.5
    assert r2(linear_of_mean(bags, target, split), target[split[1]]) < 0.1
    shuffled = np.random.default_rng(3).permutation(target)
    chance = mlp_predictions(bags, shuffled, names(90), split, seed=0)
    assert r2(chance, shuffled[split[1]]) < 0.1


def test_classes_of_unequal_size_have_equal_weight() -> None:
    """Where nothing is known, a rare class is as probable as the others."""
    rng = np.random.default_rng(0)
    target = (np.arange(120) % 6 == 0).astype(float)  # one in six
    bags = Bags(tuple((rng.standard_normal((1, 8, 16)) + 0.05 * t,) for t in target))
    found = attentive_predictions(bags, target, names(120), halves(120), n_classes=2, seed=0)
    assert abs(found[:, 1].mean() - 0.5) < 0.15


def test_a_class_without_training_units_has_probability_zero() -> None:
    bags, target = marked_tokens(30, seed=0, classes=True)
    found = attentive_predictions(
        bags, target, names(30), halves(30), n_classes=3, seed=0, options=QUICK
    )
    assert (found[:, 2] == 0).all()


@pytest.mark.parametrize("predict", [attentive_predictions, mlp_predictions])
def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_threads(predict) -> None:  # type: ignore[no-untyped-def]
    bags, target = series(30, seed=0, kind="amplitude")

    def predicted(seed: int) -> bytes:
        return bytes(predict(bags, target, names(30), halves(30), seed=seed).tobytes())

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        many = predicted(1)
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        assert many == predicted(1) != predicted(2)
    finally:
        torch.set_num_threads(before)


def test_neither_test_targets_nor_test_bags_take_part_in_the_training() -> None:
    bags, target = marked_tokens(40, seed=0)
    plain = ((part + 3 * y,) for (part,), y in zip(bags.parts, target, strict=True))
    bags, split = Bags(tuple(plain)), halves(40)  # easy, so that three epochs learn something
    found = attentive_predictions(bags, target, names(40), split, seed=0, options=QUICK)
    blind = target.copy()
    blind[split[1]] = np.nan
    changed = Bags((*bags.parts[:-1], (bags.parts[-1][0] + 9,)))
    again = attentive_predictions(changed, blind, names(40), split, seed=0, options=QUICK)
    assert found[:, 0].std() > 0
    np.testing.assert_array_equal(again[:-1], found[:-1])
    assert again[-1, 0] != found[-1, 0]


def test_subjects_are_whole_in_the_validation() -> None:
    """The target is a subject's own number: only a validation by row would call it learnt."""
    rng = np.random.default_rng(0)
    people = np.repeat([f"sub-{k:02d}" for k in range(24)], 4)
    target = np.repeat(rng.standard_normal(24), 4)
    faces = np.repeat(rng.standard_normal((24, 1, 1, 48)), 4, axis=0)
    bags = Bags(tuple((face + 0.1 * rng.standard_normal((1, 5, 48)),) for face in faces))
    split = np.arange(64), np.arange(64, 96)
    found = attentive_predictions(bags, target, people, split, seed=0)
    spread = found[:, 0].std() / target.std()
    assert spread < 0.5  # stopped early


def test_tokens_that_are_missing_or_masked_take_no_part() -> None:
    bags, target = marked_tokens(30, seed=0)
    rng = np.random.default_rng(0)
    masks = tuple((rng.random((2, 20)) > 0.2,) for _ in range(30))
    missing = tuple(
        (np.where(mask[:, :, None], part, value).astype(np.float16),)
        for (part,), (mask,), value in zip(bags.parts, masks, [np.nan, np.inf, 0] * 10, strict=True)
    )
    shared = {"seed": 0, "options": QUICK}
    split = halves(30)
    masked = attentive_predictions(Bags(bags.parts, masks), target, names(30), split, **shared)
    # where the value is 0, the mask hides it
    found = attentive_predictions(
        Bags(missing, tuple((None,) if k % 3 < 2 else masks[k] for k in range(30))),
        target,
        names(30),
        split,
        **shared,
    )
    np.testing.assert_allclose(found, masked, rtol=1e-5)
    assert np.isfinite(found).all()


def test_a_unit_without_data_is_predicted_from_the_mean() -> None:
    """As missing features of a linear readout are."""
    bags, target = marked_tokens(30, seed=0)
    empty = np.full((1, 20, 32), np.nan, dtype=np.float16)
    parts = (*bags.parts[:5], (empty,), *bags.parts[6:28], (empty,), ())
    found = attentive_predictions(Bags(parts), target, names(30), halves(30), seed=0, options=QUICK)
    assert np.isfinite(found).all()


def test_missing_parcels_and_volumes_of_a_series() -> None:
    bags, target = series(60, seed=0, kind="amplitude")
    rng = np.random.default_rng(1)
    parts = []
    for (part,) in bags.parts:
        holed = part.copy()
        holed[rng.random(150) < 0.2] = np.nan  # volumes
        holed[:, rng.integers(10, 40)] = np.nan  # a parcel outside of the field of view
        parts.append((holed,))
    split = halves(60)
    found = mlp_predictions(Bags(tuple(parts)), target, names(60), split, seed=0)
    assert r2(found, target[split[1]]) > 0.4


def test_tokens_are_read_in_pieces(tmp_path: Path) -> None:
    """80 files of 1 MB: a few windows are in memory at a time, and files give what arrays give."""
    bags, target = marked_tokens(80, seed=0)
    rng = np.random.default_rng(0)
    files = []
    for number, (part,) in enumerate(bags.parts):
        tokens = np.concatenate([part] * 400, axis=1)  # (2, 8000, 32)
        files.append(tmp_path / f"{number}.npy")
        np.save(files[-1], tokens[:, rng.permutation(tokens.shape[1])])
    on_disk = Bags(tuple((file,) for file in files))
    tracemalloc.start()
    attentive_predictions(on_disk, target, names(80), halves(80), seed=0, options=QUICK)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6 < 80e6 < sum(file.stat().st_size for file in files)


def test_bags_join_recordings_of_a_subject_and_say_which_file_is_wrong(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tokens = [rng.standard_normal((k + 1, 5, 3)).astype(np.float16) for k in range(3)]
    for number, part in enumerate(tokens):
        np.save(tmp_path / f"{number}.npy", part)
    masks = tuple((np.arange(5) < k + 2,) for k in range(3))
    masks = tuple((np.tile(mask, (k + 1, 1)),) for k, (mask,) in enumerate(masks))
    bags = Bags(tuple((tmp_path / f"{k}.npy",) for k in range(3)), masks)
    joined = bags.join([[2, 0], [1]])
    assert [joined.n_windows(k) for k in range(2)] == [4, 2]
    windows = list(joined.windows(0))
    assert [len(window) for window in windows] == [4, 4, 4, 2]
    np.testing.assert_array_equal(windows[3], tokens[0][0, :2])
    np.testing.assert_array_equal(next(bags.select([1]).windows(0)), tokens[1][0, :3])
    np.save(tmp_path / "wrong.npy", np.zeros(4))
    with pytest.raises(UserError, match=r"wrong\.npy"):
        Bags(((tmp_path / "wrong.npy",),)).n_windows(0)


def test_a_probe_that_learned_nothing_predicts_the_mean_of_all_training_units() -> None:
    """Also of those that would have stopped the training; R² is 0 then, and not below."""
    rng = np.random.default_rng(0)
    target = rng.normal(40, 20, 12)
    bags = Bags(tuple((rng.standard_normal((1, 5, 4)),) for _ in target))
    people = [f"s{k:02d}" for k in range(12)]
    split = np.arange(9), np.arange(9, 12)
    options = AttentiveOptions(epochs=0)
    found = attentive_predictions(bags, target, people, split, options=options)
    np.testing.assert_allclose(found, target[:9].mean())
