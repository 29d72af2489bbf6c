"""The checkpoint that comes with the package: small, whole, and able to predict."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import demo_cohort
from brainlm_bids import resources
from brainlm_bids.model.checkpoint import load_model, untrained_twin
from brainlm_bids.model.config import ARCHITECTURES, read_config
from brainlm_bids.model.reconstruction import reconstruct

# Never used for training, whose seeds are [1, subject].
HELD_OUT = [20261124, 7]
R2_BOUND = 0.2


@pytest.fixture(scope="module")
def demo() -> resources.ModelResource:
    found = resources.find_model("demo", offline=True)
    assert found is not None
    return found


def test_what_is_shipped(demo: resources.ModelResource) -> None:
    assert demo.path is not None
    assert (demo.path / "model.safetensors").stat().st_size <= 5_000_000
    assert read_config(demo.path / "config.json") == ARCHITECTURES["demo"]
    assert json.loads((demo.path / "config.json").read_text())["torch_dtype"] == "float16"
    for name in ("README.md", "curves.tsv", "curves.png"):
        assert (demo.path / name).stat().st_size > 0


def test_every_output_says_demo(demo: resources.ModelResource) -> None:
    assert demo.label == "brainlmdemo" and not demo.random
    assert [warning.kind for warning in demo.warnings] == ["demo_model"]


def test_predicts_what_was_hidden_in_a_recording_that_it_never_saw(
    demo: resources.ModelResource,
) -> None:
    model = load_model(str(demo.path), seed=1)
    series = demo_cohort.recording(np.random.default_rng(HELD_OUT))[:200]
    xyz = resources.parcels().xyz
    trained, control = (
        reconstruct(one, series, xyz, mask_ratio=0.5, seed=3, with_baselines=False).metrics["model"]
        for one in (model, untrained_twin(model, 1))
    )
    assert control["r2"] < 0.02
    assert trained["r2"] > R2_BOUND


def test_cohort_is_that_of_its_seed() -> None:
    (name, subject, first), (_, _, second) = demo_cohort.recordings(2, seed=1)
    assert (name, subject) == ("sub-0000_task-rest", "0000")
    alone = demo_cohort.recording(np.random.default_rng([1, 0]))
    np.testing.assert_array_equal(first, alone)
    assert np.abs(second[:100] - first[:100]).max() > 1
    # robust scaling: a quarter of the values on each side of ±half an interquartile range
    low, high = np.percentile(first, [25, 75], axis=0)
    np.testing.assert_allclose(high - low, 1.0, atol=1e-9)


def test_smooth_activity_is_alike_in_neighbours_and_mirrored() -> None:
    xyz = resources.parcels().xyz.astype(float)
    series = demo_cohort.smooth_series(np.random.default_rng(0), 2000, 0.735)
    r = np.corrcoef(series.T)
    distance = np.linalg.norm(xyz[:, None] - xyz[None], axis=-1)
    mirrored = np.linalg.norm(xyz[:, None] * [-1, 1, 1] - xyz[None], axis=-1)
    near, far = (distance > 0) & (distance < 10), np.minimum(distance, mirrored) > 80
    assert r[near].mean() > 0.5 and r[mirrored < 10].mean() > 0.5
    assert abs(r[far].mean()) < 0.1


def test_model_card_has_its_scores(demo: resources.ModelResource) -> None:
    card = (Path(str(demo.path)) / "README.md").read_text()
    for group in ("simulated, test split", "phantom", "studyforrest"):
        rows = [line for line in card.splitlines() if line.startswith(f"| {group}")]
        assert len(rows) == 3, group
