"""What the report of a run says about a model: its origin, its metrics, and a sentence on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from brainlm_bids.report.values import Fact, Row, as_float, joined, number

NO_LICENCE = "none is recorded"

# These come first, in this order.
_FIRST = ("label", "family", "source", "sha256", "untrained", "licence")
_BASELINES = {
    "parcel_mean": "the parcel mean",
    "time": "the parcel's own volumes before and after",
    "ridge": "ridge regression on the other parcels",
    "ridge_time": "ridge regression with neighbours in time",
}


@dataclass(frozen=True)
class MetricRow:
    """A row of a model's metrics; `best` marks the best predictor of its mask ratio."""

    mask_ratio: str
    predictor: str
    values: tuple[str, ...]
    best: bool


def described(sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """What a sidecar says about the model."""
    model = sidecar.get("Model")
    return model if isinstance(model, dict) else {}


def licence(model: Mapping[str, Any]) -> str:
    """The licence of the weights, as the sidecar records it.

    >>> licence({"label": "brainlm13M"}), licence({"licence": "MIT"})
    ('none is recorded', 'MIT')
    """
    unknown = "none (random weights)" if model.get("untrained") else NO_LICENCE
    return str(model.get("licence") or unknown)


def facts(model: Mapping[str, Any], windows: list[Row]) -> list[Fact]:
    """Origin of the model, and the number and the size of its embeddings."""
    keys = [key for key in _FIRST if key in model]
    keys += [key for key in model if key not in _FIRST]
    rows = [
        Fact(key, "yes" if value is True else "no" if value is False else str(value))
        for key in keys
        if isinstance(value := model[key], str | int | float)
    ]
    if windows:
        width = sum(1 for key in windows[0] if key not in {"onset", "duration"})
        note = f"{width} dimensions" if width else ""
        rows.append(Fact("windows", str(len(windows)), note))
    return rows


def metrics(rows: list[Row]) -> tuple[list[MetricRow], list[str]]:
    """The metrics as a table whose best rows are marked, and a sentence about each outcome."""
    table: list[MetricRow] = []
    verdicts: dict[str, list[str]] = {}
    ratios = {row.get("mask_ratio", "") for row in rows}
    for ratio in sorted(ratios, key=lambda text: as_float(text) or 0):
        group = [row for row in rows if row.get("mask_ratio", "") == ratio]
        scores = {row.get("predictor", ""): as_float(row.get("r2")) for row in group}
        known = {name: score for name, score in scores.items() if score is not None}
        best = max(known.values()) if known else None
        for row in group:
            name = row.get("predictor", "")
            values = tuple(_score(row.get(key)) for key in ("mse", "mae", "r2", "pearson_r"))
            values += (number(row.get("n_windows")),)
            table.append(MetricRow(number(ratio), name, values, known.get(name) == best))
        if "model" in known and len(known) > 1:
            verdicts.setdefault(verdict(known), []).append(number(ratio))
    sentences = [
        f"With {joined(ratios)} of the values masked, the model {text}."
        for text, ratios in verdicts.items()
    ]
    return table, sentences


def _score(value: object) -> str:
    """A score with four decimals, so that the columns of a table line up."""
    score = as_float(value)
    return "n/a" if score is None else f"{score:.4f}"


def baseline_name(predictor: str) -> str:
    """A simple predictor in words.

    >>> baseline_name("parcel_mean")
    'the parcel mean'
    """
    return _BASELINES.get(predictor, predictor)


def verdict(scores: Mapping[str, float]) -> str:
    """Say which simple predictors a model outperforms, from the r² of all predictors."""
    baselines = {baseline_name(name): s for name, s in scores.items() if name != "model"}
    beaten = [name for name, score in baselines.items() if scores["model"] > score]
    others = [name for name in baselines if name not in beaten]
    if not others:
        return f"predicts better than {joined(beaten)}"
    if not beaten:
        return f"predicts no better than {joined(others)}"
    return f"predicts better than {joined(beaten)}, but not better than {joined(others)}"
