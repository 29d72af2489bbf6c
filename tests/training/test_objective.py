"""The kernel of training: losses against closed forms and the reference; seeds; the optimiser."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import SMALL_IMAGE, recording
from torch import nn

from brainlm_bids.commands.training import SIZES
from brainlm_bids.model.checkpoint import LoadedModel, load_model, network_over, random_network
from brainlm_bids.model.config import ARCHITECTURES, VITMAE_DIVISOR, config_content, read_config
from brainlm_bids.model.masking import mask_by_order
from brainlm_bids.resources import parcels
from brainlm_bids.training.objective import (
    MaskedPrediction,
    batches,
    decay_groups,
    default_learning_rate,
    draw,
    learning_rate,
    mse_and_r2,
    window_losses,
)


def test_window_losses_closed_form() -> None:
    """Two windows of two parcels: the mean of each window's hidden errors, in both units."""
    truth = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [5.0, 6.0]]])
    guess = truth + torch.tensor([[[1.0, 9.0], [2.0, 9.0]], [[3.0, 9.0], [1.0, 4.0]]])
    hidden = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [1.0, 1.0]]])
    found = window_losses(guess, truth, hidden, unit=2.0)
    assert found.loss.tolist() == pytest.approx([(1 + 4) / 2, (9 + 1 + 16) / 3])
    # The first parcel of the second window has no data: it counts in the loss alone.
    assert found.number.tolist() == [2, 2]
    assert found.total.tolist() == [2 * (1 + 3), 2 * (5 + 6)]
    assert found.squares.tolist() == [4 * (1 + 9), 4 * (25 + 36)]
    assert found.errors.tolist() == [4 * (1 + 4), 4 * (1 + 16)]
    absolute = window_losses(guess, truth, hidden, kind="mae").loss
    assert absolute.tolist() == pytest.approx([3 / 2, (3 + 1 + 4) / 3])
    mse, r2 = mse_and_r2(*(part.numpy() for part in found[1:]))
    x = 2 * np.array([1, 3, 5, 6])
    e = 2 * np.array([1, 2, 1, 4])
    assert mse == pytest.approx((e**2).mean())
    assert r2 == pytest.approx(1 - (e**2).sum() / ((x - x.mean()) ** 2).sum())
    assert all(math.isnan(value) for value in mse_and_r2([], [], [], []))


@pytest.mark.shared
@pytest.mark.parametrize(
    ("folder", "case"),
    [
        ("brainlm_micro", "mask20"),
        ("brainlm_micro", "mask75"),
        ("brainlm_tiny", "mask20"),
        ("brainlm_tiny", "mask75"),
        ("vitmae_tiny_p16", "auto75"),
    ],
)
def test_loss_is_the_reference_s(shared: Path, folder: str, case: str) -> None:
    golden = shared / "golden" / folder
    about = json.loads((golden / "meta.json").read_text())["cases"][case]
    inputs = dict(np.load(golden / "inputs.npz"))
    network = load_model(golden, seed=0).network
    if about.get("loss_fn") == "mae":
        network = network_over(replace(network.config, loss_fn="mae"), network.module)
    signal = torch.from_numpy(inputs["signal"]).float()
    order = torch.argsort(torch.from_numpy(inputs["noise"]), dim=1)
    coords = parcels().xyz if folder.startswith("vitmae") else inputs["xyz"]
    task = MaskedPrediction(network, coords, about["mask_ratio"])
    with torch.no_grad():
        loss = task(signal, order).loss.mean()
    assert float(loss) == pytest.approx(about["loss"], rel=2e-6)


def test_loss_is_that_of_the_module(model: LoadedModel) -> None:
    """`MaskedPrediction` prepares windows as `recording.prepare` does: same loss, both families."""
    series, coords = recording(200)
    signal = torch.from_numpy(series.T[None].astype(np.float32))
    order = torch.from_numpy(np.random.default_rng(0).permutation(model.config.n_tokens))[None]
    task = MaskedPrediction(model.network, coords, model.config.mask_ratio)
    masking = mask_by_order(order, task.n_keep)
    with torch.no_grad():
        found = float(task(signal, order).loss)
        if model.family == "brainlm":
            xyz = torch.from_numpy(coords).float()[None]
            expected = model.module.loss(model.module(signal, xyz, masking), signal)
        else:
            rows = np.argsort(coords[:, 1], kind="stable")
            picture = signal[:, rows] / VITMAE_DIVISOR
            expected = model.module.loss(model.module(picture, masking), picture)
    assert found == pytest.approx(float(expected), rel=1e-6)


def test_windows_and_masks_come_from_the_key_alone() -> None:
    config = ARCHITECTURES["tiny"]
    first, order = draw(config, 1000, (42, 1, 3, 7))
    again = draw(config, 1000, (42, 1, 3, 7))
    assert again[0] == first and (again[1] == order).all()
    assert sorted(order) == list(range(4240))
    others = [draw(config, 1000, key) for key in ((42, 1, 4, 7), (42, 1, 3, 8), (43, 1, 3, 7))]
    assert all((one[1] != order).mean() > 0.9 for one in others)
    starts = [draw(config, 203, (0, 1, 0, k))[0] for k in range(100)]
    assert set(starts) == {0, 1, 2, 3}  # all windows that fit, and no other
    assert draw(config, 200, (0, 1, 0, 0))[0] == 0


def test_an_epoch_has_every_window_once_in_steps_of_like_size() -> None:
    steps = batches(33, 8, seed=1, epoch=0)
    assert sorted(np.concatenate(steps)) == list(range(33))
    assert sorted(len(step) for step in steps) == [6, 6, 7, 7, 7]
    assert not np.array_equal(np.concatenate(batches(33, 8, 1, 1)), np.concatenate(steps))
    assert [len(step) for step in batches(5, 512, 1, 0)] == [5]


def test_learning_rate_is_a_line_then_half_a_cosine() -> None:
    rates = [learning_rate(step, 100, 2.0, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10 * 2.0)
    assert rates[10:] == pytest.approx(1 + np.cos(np.pi * np.arange(90) / 90))
    assert learning_rate(0, 10, 2.0, 0.0) == 2.0
    assert default_learning_rate(ARCHITECTURES["13M"], 512) == 5e-3
    assert default_learning_rate(ARCHITECTURES["650M"], 64) == pytest.approx(5e-4 / 4)


@pytest.mark.parametrize("family", ["brainlm", "vitmae"])
def test_what_decays(family: str) -> None:
    """By name: weights of layers but LayerNorm, not tokens, not the fixed positions."""
    config = ARCHITECTURES["tiny"] if family == "brainlm" else SMALL_IMAGE
    network = random_network(config, 0).module
    norms = {name for name, part in network.named_modules() if isinstance(part, nn.LayerNorm)}
    expected, rest = set(), set()
    for name, weight in network.named_parameters():
        owner, _, kind = name.rpartition(".")
        if "position" in name or "pos_embed" in name:
            continue
        decays = kind == "weight" and owner not in norms
        (expected if decays else rest).add(id(weight))
    decayed, others = decay_groups(network, 0.3)
    assert {id(weight) for weight in decayed["params"]} == expected
    assert {id(weight) for weight in others["params"]} == rest
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.3, 0.0)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_config_content_reads_back(name: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config_content(ARCHITECTURES[name])))
    assert read_config(file) == ARCHITECTURES[name]


def test_sizes_are_those_of_the_architectures() -> None:
    assert set(SIZES) == set(ARCHITECTURES)
