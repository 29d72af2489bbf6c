"""Checkpoints that are saved load elsewhere, and say what a copy must not lose."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from oracles import transformers_says
from released import SMALL_P16, write_checkpoint
from safetensors.torch import load_file

from brainlm_bids import BrainLM
from brainlm_bids.files import read_json, write_json
from brainlm_bids.model.checkpoint import load_model
from brainlm_bids.model.config import ARCHITECTURES
from brainlm_bids.resources import NOT_STATED, WEIGHTS_LICENCE
from brainlm_bids.resources.labels import stated_licence
from brainlm_bids.training.card import model_card
from brainlm_bids.training.saving import write_network

ORIGIN = {"Source": "vandijklab/brainlm", "Sha256": "ab" * 32, "Licence": WEIGHTS_LICENCE}


def _header(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_a_saved_network_is_the_same_network(tmp_path: Path) -> None:
    demo = BrainLM.from_pretrained("demo", device="cpu")
    demo.save_pretrained(tmp_path / "copy")
    series = np.random.default_rng(0).normal(size=(220, 424))
    again = BrainLM.from_pretrained(tmp_path / "copy", device="cpu")
    found, expected = again.embed(series, tr=0.735), demo.embed(series, tr=0.735)
    np.testing.assert_array_equal(found.recording, expected.recording)
    assert stated_licence(tmp_path / "copy").lower() == "apache-2.0"
    assert (tmp_path / "copy" / "README.md").read_text().count("---\n") == 2


@pytest.mark.shared
@pytest.mark.parametrize("name", ["brainlm_tiny", "brainlm_micro", "vitmae_tiny_p16"])
def test_what_is_saved_is_what_the_original_code_saved(
    shared: Path, tmp_path: Path, name: str
) -> None:
    """Every name, shape and value of the original's state; its classes load strictly by these."""
    golden = shared / "golden" / name
    network = load_model(golden, seed=0).network
    write_network(tmp_path / name, network)
    unused = network.unused_tensors()  # in the original's state, and without effect on anything
    theirs = load_file(golden / "model.safetensors")
    ours = load_file(tmp_path / name / "model.safetensors")
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        # the tables of positions are computed; those of the original are of another torch
        tolerance = 1e-3 if "pos" in key else 0.0
        assert ours[key].shape == value.shape, key
        if key not in unused:
            torch.testing.assert_close(ours[key], value.float(), atol=tolerance, rtol=0.0, msg=key)
    content = read_json(tmp_path / name / "config.json")
    for key, value in read_json(golden / "config.json").items():
        if key in content:
            assert content[key] == value, key
    assert content["architectures"] == read_json(golden / "config.json")["architectures"]


def test_transformers_loads_what_is_saved(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source", SMALL_P16)
    model = load_model(source, seed=0)
    write_network(tmp_path / "saved", model.network)
    generator = torch.Generator().manual_seed(1)
    picture = 0.2 * torch.randn((1, 42, 38), generator=generator)
    config = model.config
    noise = torch.rand(1, config.grid[0] * config.grid[1], generator=generator)
    expected = transformers_says(source, picture, noise, 0.5)
    found = transformers_says(tmp_path / "saved", picture, noise, 0.5)
    torch.testing.assert_close(found.logits, expected.logits, atol=0.0, rtol=0.0)
    torch.testing.assert_close(found.latent, expected.latent, atol=0.0, rtol=0.0)


def test_adapted_weights_carry_their_licence_and_its_warning() -> None:
    about = {"StartedFrom": ORIGIN, "Step": 10, "Scores": {"r2": 0.123456, "ridge": None}}
    card = model_card("mine", ARCHITECTURES["tiny"], about)
    assert "**Do not share these weights.**" in card
    header = _header(card)
    assert header["license"] == "cc-by-nc-nd-4.0" and header["base_model"] == "vandijklab/brainlm"
    assert "| r2 | 0.1235 |" in card and "ridge" not in card.split("## Scores")[1].split("##")[0]


def test_unchanged_and_unknown_weights_say_so() -> None:
    tiny = ARCHITECTURES["tiny"]
    published = model_card("brainlm13M", tiny, {}, licence=WEIGHTS_LICENCE)
    assert "Do not share" not in published and "forbids any commercial use" in published
    unknown = model_card("mine", tiny, {"Step": 3}, licence=NOT_STATED)
    assert "license" not in _header(unknown) and "None is stated" in unknown
    assert "trained from random weights" in unknown


def test_a_card_cannot_be_broken_by_what_it_tells() -> None:
    evil = 'x"\n---\nlicense: mit | <script>alert(1)</script>'
    about = {"StartedFrom": {**ORIGIN, "Licence": evil}, "Target": evil}
    card = model_card("mine", ARCHITECTURES["tiny"], about)
    header = _header(card)
    assert header["license"] == "other" and "mit" in header["license_name"]
    assert '| Target | x" --- license: mit \\| &lt;script>' in card


def test_the_record_of_a_training_goes_with_a_copy(tmp_path: Path) -> None:
    demo = BrainLM.from_pretrained("demo", device="cpu")
    demo.save_pretrained(tmp_path / "first")
    write_json(tmp_path / "first" / "training.json", {"StartedFrom": ORIGIN, "Step": 5})
    BrainLM.from_pretrained(tmp_path / "first", device="cpu").save_pretrained(tmp_path / "second")
    assert read_json(tmp_path / "second" / "training.json")["Step"] == 5
    assert stated_licence(tmp_path / "second") == WEIGHTS_LICENCE
    assert "Do not share" in (tmp_path / "second" / "README.md").read_text()
