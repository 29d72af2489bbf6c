"""Scores of the weights that a pretraining begins with: what it has to improve on.

They are taken on the validation windows with the masks of every later score. Where the training
continues from a checkpoint, untrained weights of the same architecture are scored beside it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from brainlm_bids.files import write_tsv
from brainlm_bids.model.checkpoint import random_network
from brainlm_bids.resources import parcels
from brainlm_bids.training.curves import START_FILE
from brainlm_bids.training.evaluation import BaselineSums, Evaluator, compared
from brainlm_bids.training.loader import WindowSet
from brainlm_bids.training.objective import VALIDATION, MaskedPrediction, mse_and_r2
from brainlm_bids.training.setup import StartingPoint

START, UNTRAINED = "start", "untrained"


def score_start(
    evaluator: Evaluator,
    windows: WindowSet,
    baselines: BaselineSums,
    start: StartingPoint,
    seed: int,
) -> list[dict[str, Any]]:
    """Score the first weights, and untrained ones where these are not.

    Parameters
    ----------
    evaluator
        With the network before its first step.
    windows
        The validation windows.
    baselines
        Sums of the baselines on some of them.
    start
        What the training begins with.
    seed
        Of untrained weights.

    Returns
    -------
    list of dict
        A row per network: weights ("start" or "untrained"), windows, mse, r2, and the scores of
        `evaluation.compared`.
    """
    tasks = {START if start.sha256 else UNTRAINED: evaluator.task}
    if start.sha256:
        config = start.network.config
        network = random_network(config, seed)
        task = MaskedPrediction(network, parcels().xyz, config.mask_ratio)
        tasks[UNTRAINED] = task.to(evaluator.engine.device)
    rows = []
    with torch.random.fork_rng():  # the training draws what it would have drawn
        for name, task in tasks.items():
            sums = Evaluator(evaluator.engine, task, evaluator.micro).sums(windows, VALIDATION)
            mse, r2 = mse_and_r2(*sums[:, 1:].T)
            scores = {"mse": mse, "r2": r2, **compared(sums, baselines)}
            rows.append({"weights": name, "windows": len(sums), **scores})
    return rows


def write_start(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """Write the scores of the first weights.

    Parameters
    ----------
    folder
        The run folder.
    rows
        See `score_start`.

    Returns
    -------
    Path
        The table.
    """
    names: Mapping[str, Any] = rows[0]
    return write_tsv(
        folder / START_FILE, list(names), [[row[name] for row in rows] for name in names]
    )
