"""Figures of the tools: the same bytes for the same input, and what they show is what was given."""

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from tool_folders import R2, errors, first_scores, history

from brainlm_bids import resources
from brainlm_bids.experiments.horizons import mean_errors
from brainlm_bids.figures.experiments import (
    plot_finetuning,
    plot_horizons,
    plot_perturbation,
    plot_pretraining,
)


def _horizons(path: Path) -> None:
    columns = mean_errors(errors(R2, 12), [f"sub-{k}" for k in range(12)], 0)
    plot_horizons(path, columns, ["brainlm13M", "randomtiny"], "a <title> $x")


def _pretraining(path: Path) -> None:
    plot_pretraining(path, history([0.1, 0.3]), {"untrained": first_scores()[0]}, [0.5])


def _finetuning(path: Path) -> None:
    row = {
        "label": "fine-tuned",
        "default": True,
        "metric": "r2",
        "value": 0.3,
        "low": 0.1,
        "high": 0.5,
        "features": "finetuned",
        "scaling": "recording",
        "readout": "head",
        "n_subjects": 9,
        "n_folds": 3,
        "target": "age",
        "permutation_p": 0.01,
    }
    curves = [
        {"epoch": "0", "train_loss": "n/a", "validation_loss": "1"},
        {"epoch": "1", "train_loss": "0.8", "validation_loss": "0.7"},
    ]
    plot_finetuning(path, [row], [curves])


def _perturbation(path: Path) -> None:
    parcels = resources.parcels()
    labels = np.arange(20**3).reshape((20,) * 3) % (len(parcels.names) + 1)
    affine = np.diag([8.0, 8.0, 8.0, 1.0])
    affine[:3, 3] = -80
    z = np.random.default_rng(0).normal(size=len(parcels.names))
    z[:3] = np.nan
    image = labels.astype(np.int16), affine
    plot_perturbation(
        path, np.abs(z), z, np.ones(len(z)), [0, 1], image, parcels, (2.0, np.arange(9.0)), "title"
    )


DRAWN = (_horizons, _pretraining, _finetuning, _perturbation)


@pytest.mark.parametrize("draw", DRAWN)
def test_the_same_input_gives_the_same_picture(
    draw: Callable[[Path], None], tmp_path: Path
) -> None:
    paths = [tmp_path / name for name in ("one.svg", "two.svg", "one.png")]
    for path in paths:
        draw(path)
    first, second, picture = (path.read_bytes() for path in paths)
    assert first == second and picture.startswith(b"\x89PNG")
    ElementTree.fromstring(first)
    assert len(first) < 400_000
    assert not re.search(rb"<dc:date>|https?://(?!www\.w3|creativecommons|purl)", first)


def test_where_a_training_was_continued_is_drawn(tmp_path: Path) -> None:
    """A line for each time, and none without."""
    sizes = []
    for name, resumed in (("none", []), ("one", [0.5]), ("two", [0.5, 1.5])):
        path = tmp_path / f"{name}.svg"
        plot_pretraining(path, history([0.1, 0.3]), {}, resumed)
        sizes.append(path.read_text().count("<path"))
    assert sizes[0] < sizes[1] < sizes[2]


def test_without_baselines_the_network_is_drawn_alone(tmp_path: Path) -> None:
    nothing = {"compared_r2", "mean_r2", "time_r2", "ridge_r2", "ridge_time_r2"}
    rows = [
        {key: float("nan") if key in nothing else value for key, value in row.items()}
        for row in history([0.1, 0.3])
    ]
    plot_pretraining(tmp_path / "a.svg", rows, {}, [])
    assert (tmp_path / "a.svg").stat().st_size > 1000
