"""Folders as `brainlm forecast`, `perturb`, `finetune` and `pretrain` leave them, not computed.

The numbers are seeded noise around given means, so that what a page has to say of them is known.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainlm_bids import files, resources
from brainlm_bids.bids.calls import recorded
from brainlm_bids.bids.names import GROUP
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.cohort.sources import DECODING_COLUMNS, SOURCES
from brainlm_bids.experiments.horizons import compared_errors, mean_errors
from brainlm_bids.figures.experiments import BASELINES, plot_horizons, plot_pretraining
from brainlm_bids.notices import Kind, notice, to_json

SPACE, ATLAS = "MNI152NLin6Asym", "A424"
VERSION = {"GeneratedBy": {"Name": "brainlm-bids", "Version": "1.2.3"}}
MODELS = {
    "brainlm13M": {"name": "13M", "sha256": "ab" * 32, "source": "hub", "licence": "CC BY-NC-ND"},
    "randomtiny": {"name": "random:tiny", "sha256": None, "source": "seed 1", "untrained": True},
}
UNTRAINED = to_json([notice(Kind.UNTRAINED_MODEL, "The model has random weights.")])
R2 = {
    "brainlm13M": 0.3,
    "randomtiny": 0.0,
    "median": 0.0,
    "persistence": -0.9,
    "autoregressive": 0.2,
    "vector_autoregressive": 0.4,
}


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    names = list(rows[0])
    return files.write_tsv(path, names, [[row[name] for row in rows] for name in names])


def call(folder: Path, tool: str, **facts: Any) -> None:
    """Record a call that ended, or as `facts` say."""
    with recorded(folder, ["brainlm", tool, "OUT <1>", folder.name], Tool=tool) as record:
        record |= facts


def errors(
    r2: Mapping[str, float], n_subjects: int, *, tr: float = 2.0, n_ahead: int = 4, seed: int = 0
) -> list[list[dict[str, Any]]]:
    """Rows of each recording, as its table of errors has them."""
    rng = np.random.default_rng(seed)
    return [
        [
            {
                "predictor": name,
                "horizon": ahead,
                "seconds": ahead * tr,
                "rmse": 0.8 + 0.01 * rng.standard_normal(),
                "pearson_r": 0.1,
                "r2": value / ahead + 0.01 * rng.standard_normal(),
            }
            for name, value in r2.items()
            for ahead in range(1, n_ahead + 1)
        ]
        for _ in range(n_subjects)
    ]


def forecast_folder(folder: Path, n_subjects: int = 12, r2: Mapping[str, float] = R2) -> Path:
    parameters = {
        "volumes": 12,
        "origins": 8,
        "order": None,
        "series": "robust",
        "seed": 42,
        "input": "/data/OUT & more",
        "causal": False,
    }
    weights = {name: one["sha256"] for name, one in MODELS.items()}
    record = {"Command": "brainlm forecast", "Parameters": parameters, "Weights": weights}
    files.write_json(folder / "experiment.json", {**record, **VERSION})
    subjects = [f"sub-{k:02d}" for k in range(n_subjects)]
    tables = errors(r2, n_subjects)
    naming = Naming(str(folder), "group_task-rest", SPACE, ATLAS)
    columns = mean_errors(tables, subjects, 0)
    models = [name for name in r2 if name not in BASELINES]
    gains = compared_errors(tables, subjects, models, 0)
    files.write_tsv(naming.path("group_forecast"), list(columns), list(columns.values()))
    files.write_tsv(naming.path("group_forecast_comparisons"), list(gains), list(gains.values()))
    sidecar = {
        "Models": {name: MODELS[name] for name in models},
        "Recordings": [f"{subject}_task-rest" for subject in subjects],
        "Warnings": UNTRAINED,
    }
    files.write_json(naming.path("group_forecast", extension=".json"), sidecar)
    plot_horizons(naming.figure("forecast_horizons"), columns, models)
    call(folder, "forecast", Failed={"sub-99_task-rest": "sub-99_task-rest: 30 volumes <b>"})
    return folder


def perturb_folder(
    folder: Path, *, distance: float = 3.0, p: float = 0.01, n_null: int = 999, lifted: int = 5
) -> Path:
    """`lifted` parcels have q of 0.01, all others 0.5."""
    parameters = {
        "parcels": ["R_V1"],
        "lesion": True,
        "n_null": n_null,
        "match": "size",
        "seed": 42,
        "input": "/data/OUT",
        "value": None,
        "scale": None,
    }
    record = {"Command": "brainlm perturb", "Parameters": parameters, "Weights": {}}
    files.write_json(folder / "experiment.json", {**record, **VERSION})
    parcels = resources.parcels()
    for label, about in MODELS.items():
        naming = Naming(str(folder), "group_task-rest", SPACE, ATLAS)
        rows = [
            {
                "index": k + 1,
                "name": parcels.names[k],
                "hemisphere": parcels.hemisphere[k],
                "network": parcels.network[k],
                "changed": int(k == 0),
                "change": None if k == 0 else 0.1 + 1e-4 * k,
                "null_mean": 0.1,
                "null_sd": 0.01,
                "z": None if k == 0 else (5.0 if k <= lifted else 0.1),
                "p": None if k == 0 else (0.001 if k <= lifted else 0.4),
                "n_null": n_null,
                "q": None if k == 0 else (0.01 if k <= lifted else 0.5),
            }
            for k in range(len(parcels.names))
        ]
        path = write_table(naming.path("group_perturbation", model=label), rows)
        sidecar = {
            "Models": {label: about},
            "Recordings": ["sub-01_task-rest", "sub-02_task-rest"],
            "NumberOfSubjects": 2,
            "ChangedParcels": ["R_V1"],
            "Change": {"value": 0.0},
            "NullSets": n_null,
            "NullMatchedFor": "number of parcels",
            "MeanDistance": 24.4,
            "NullMeanDistance": 75.7,
            "Warnings": UNTRAINED if about.get("untrained") else [],
        }
        files.write_json(path.with_suffix(".json"), sidecar)
        moved = [
            {
                "recording": name,
                "distance": distance,
                "relative_distance": 0.2,
                "cosine_distance": 0.1,
                "null_mean": 1.0,
                "null_sd": 0.5,
                "z": (distance - 1) / 0.5,
                "p": p,
                "n_null": n_null,
            }
            for name in ("sub-01_task-rest", "sub-02_task-rest", "mean")
        ]
        write_table(naming.path("group_perturbation_embeddings", model=label), moved)
    call(folder, "perturb")
    return folder


def decoding_rows(values: Mapping[str, tuple[float, float, float]], p: float) -> list[Any]:
    """Rows of a table of decodings; `values`: name of a source to R² and its interval."""
    rows = []
    for name, (value, low, high) in values.items():
        features, readout, scaling = (
            ("finetuned", "head", "recording")
            if name == "finetuned"
            else ("baseline", "mean", "n/a")
            if name == "baseline"
            else next(source[:3] for source in SOURCES if source.name == name)
        )
        about = ("age", "regression", features, readout, scaling, "r2", value, low, high)
        counts = (None if name == "baseline" else p, 20, 20, 5, 1)
        rows.append(dict(zip(DECODING_COLUMNS, (*about, *counts), strict=True)))
    return rows


SCORES = {
    "finetuned": (0.4, 0.3, 0.5),
    "embedding_attentive_recording": (0.1, 0.0, 0.2),
    "connectivity_linear": (0.45, 0.35, 0.55),
    "untrained_attentive_recording": (0.05, -0.1, 0.2),
    "baseline": (0.0, 0.0, 0.0),
}


def finetune_folder(folder: Path) -> Path:
    parameters = {
        "checkpoint": "13M",
        "target": ["age"],
        "folds": 5,
        "frozen": False,
        "permutations": 99,
        "seed": 42,
        "data": "/data/OUT",
        "future": None,
    }
    record = {"Command": "brainlm finetune", "Parameters": parameters, "Checkpoint": {}}
    files.write_json(folder / "experiment.json", {**record, **VERSION})
    target = folder / "age"
    write_table(target / "decoding.tsv", decoding_rows(SCORES, 0.01))
    compared = {
        "Metric": "r2",
        "embedding_attentive_recording": {"Difference": 0.3, "Low": 0.1, "High": 0.5},
        "connectivity_linear": {"Difference": -0.05, "Low": -0.2, "High": 0.1},
        "untrained_attentive_recording": {"Difference": 0.35, "Low": 0.1, "High": 0.5},
        "baseline": {"Difference": 0.4, "Low": 0.3, "High": 0.5},
    }
    sidecar = {
        "Comparisons": compared,
        "DefaultReadout": "embedding_attentive_recording",
        "Units": "subject",
        "Frozen": False,
        "Series": "robust",
        "Warnings": [],
        "NotDecoded": {"motion and coverage": "not recorded"},
    }
    files.write_json(target / "decoding.json", sidecar)
    curves = [
        {"fold": fold, "epoch": epoch, "train_loss": 1.0, "validation_loss": loss}
        for fold, losses in ((1, (1.0, 0.5, 0.6)), (2, (1.0, 1.1, 1.2)))
        for epoch, loss in enumerate(losses)
    ]
    write_table(target / "curves.tsv", curves)
    folds = [
        {
            "fold": fold,
            "source": source,
            "n_fitted": 12,
            "n_validation": 4,
            "n_test": 4,
            "metric": "mae",
            "value": value,
        }
        for fold, values in ((1, (5.0, 6.0)), (2, (7.0, 6.0)))
        for source, value in zip(("finetuned_head_recording", "baseline_mean"), values, strict=True)
    ]
    write_table(target / "folds.tsv", folds)
    call(folder, "finetune", Models={"brainlm13M": MODELS["brainlm13M"]})
    return folder


def history(r2: Sequence[float], ridge: float = 0.3) -> list[dict[str, float]]:
    return [
        {
            "epoch": epoch,
            "step": 3 * epoch,
            "learning_rate": 1e-3,
            "train_loss": 1 - value,
            "gradient_norm": 1.0,
            "validation_loss": 1 - value,
            "validation_mse": 1 - value,
            "validation_r2": value,
            **{
                f"{name}_{metric}": sign * number + (metric == "mse")
                for name, number in (
                    ("compared", value),
                    ("mean", 0.0),
                    ("time", 0.2),
                    ("ridge", 0.1),
                    ("ridge_time", ridge),
                )
                for metric, sign in (("mse", -1), ("r2", 1))
            },
            "windows_per_second": 10.0,
            "seconds_waiting": 0.5,
            "seconds_validating": 0.1,
        }
        for epoch, value in enumerate(r2, start=1)
    ]


def first_scores(r2: float = 0.0) -> list[dict[str, Any]]:
    scores = {key: value for key, value in history([r2])[0].items() if "_r2" in key}
    return [{"weights": "untrained", "windows": 8, "mse": 1 - r2, "r2": r2, **scores}]


def pretrain_folder(folder: Path, *, epochs: int = 4, done: int = 4) -> Path:
    record = {
        "Parameters": {
            "seed": 42,
            "epochs": epochs,
            "batch": 512,
            "learning_rate": 1e-3,
            "warm_up": 0.05,
            "weight_decay": 0.05,
        },
        "Network": {"mask_ratio": 0.2, "hidden_size": 32},
        "StartedFrom": {"Source": "tiny, untrained", "Sha256": None, "Licence": "untrained: none"},
        "Store": {"Sha256": "cd" * 32},
        "Versions": {"brainlm-bids": "1.2.3", "torch": "2.9"},
        "StoreFolder": "/data/OUT/training_store/desc-robust",
    }
    files.write_json(folder / "config" / "run.json", record)
    curves = history(np.linspace(0.1, 0.4, epochs)[:done].tolist())
    write_table(folder / "start.tsv", first_scores())
    columns = ["participant_id", "split"]
    files.write_tsv(
        folder / "split.tsv",
        columns,
        [["sub-1", "sub-2", "sub-3"], ["train", "validation", "test"]],
    )
    if curves:
        write_table(folder / "curves.tsv", curves)
        naming = Naming(str(folder), GROUP, "", "")
        first = {"untrained": first_scores()[0]}
        plot_pretraining(naming.figure("pretrain_curves"), curves, first, [1.5])
        files.write_json(folder / "last" / "training.json", {"Step": 3 * done, "Epoch": done})
    whole = {"Steps": 3 * epochs}
    if done == epochs:
        row = {"epoch": epochs, "windows": 4, **history([0.35])[0], "mse": 0.65, "r2": 0.35}
        write_table(folder / "test.tsv", [row])
        call(folder, "pretrain", FromStep=0, ToStep=3 * done, **whole)
    else:
        call(folder, "pretrain", Outcome="stopped", Reason="SIGTERM", ToStep=3 * done, **whole)
    return folder


FOLDERS = {
    "forecast": forecast_folder,
    "perturb": perturb_folder,
    "finetune": finetune_folder,
    "pretrain": pretrain_folder,
}
