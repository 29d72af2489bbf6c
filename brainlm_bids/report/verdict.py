"""What a table of decoding scores shows, in words: the embedding beside the other features.

Features are compared by the metric of the permutation test, R² or AUC, and by the interval of their
difference; where that was not recorded, by whether their own intervals overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brainlm_bids.figures.palette import FEATURES, Features
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.values import Row, as_float, joined, number

_SIGNIFICANT = 0.05
_NAMES = {"r2": "R²", "auc": "AUC"}
_BETTER, _WORSE, _UNDECIDED = "better than", "worse than", "undecided"


def verdict(rows: Sequence[Row], compared: Mapping[str, Any]) -> str:
    """What the scores of a target show.

    Parameters
    ----------
    rows
        Of the table of decoding, all of one target.
    compared
        The target's field in the sidecar's Comparisons; empty where none was recorded.

    Returns
    -------
    str
        Two or three sentences.
    """
    by_metric = {row["metric"]: row for row in rows}
    metric = str(compared.get("Metric") or ("r2" if "r2" in by_metric else "auc"))
    scores = by_metric.get(metric)
    p = as_float(by_metric.get("permutation_p", {}).get(FEATURES[0].column))
    if scores is None or as_float(scores.get(FEATURES[0].column)) is None:
        return _chance(p)
    return f"{_chance(p)} {_comparison(scores, _NAMES[metric], compared)}"


def _chance(p: float | None) -> str:
    if p is None:
        return (
            "Without a permutation test it is not known whether the embedding predicts this target."
        )
    if p < _SIGNIFICANT:
        return f"The embedding predicts this target better than chance (p = {number(p, 2)})."
    return (
        f"The embedding does not predict this target better than chance (p = {number(p, 2)}, not "
        f"below {_SIGNIFICANT:g})."
    )


def _comparison(scores: Row, metric: str, compared: Mapping[str, Any]) -> str:
    own = number(scores[FEATURES[0].column], 3)
    groups: dict[str, list[str]] = {}
    for other in FEATURES[1:]:
        result, numbers = _compare(scores, other, mapping(compared.get(other.column)))
        groups.setdefault(result, []).append(f"{other.label} ({numbers})")
    parts = [
        f"{result} {joined(groups[result])}" for result in (_BETTER, _WORSE) if result in groups
    ]
    sentences = [f"Its {metric} ({own}) is {', and '.join(parts)}."] if parts else []
    if _UNDECIDED in groups:
        verb = f"The difference of its {metric} ({own}) from that of"
        if parts:
            verb = "The difference from"
        sentences.append(f"{verb} {joined(groups[_UNDECIDED])} is within its uncertainty.")
    return " ".join(sentences)


def _compare(scores: Row, other: Features, found: Mapping[str, Any]) -> tuple[str, str]:
    """Better, worse or undecided; and the numbers that tell."""
    value = number(scores.get(other.column), 3)
    low, high = as_float(found.get("Low")), as_float(found.get("High"))
    if low is not None and high is not None:
        gain = number(found.get("Difference"), 2)
        numbers = f"{value}; difference {gain} [{number(low, 2)}, {number(high, 2)}]"
        return _BETTER if low > 0 else _WORSE if high < 0 else _UNDECIDED, numbers
    own, its = _interval(scores, FEATURES[0]), _interval(scores, other)
    if own is None or its is None:
        return _UNDECIDED, value
    numbers = f"{value} [{number(its[0], 3)}, {number(its[1], 3)}]"
    return _BETTER if own[0] > its[1] else _WORSE if own[1] < its[0] else _UNDECIDED, numbers


def _interval(scores: Row, features: Features) -> tuple[float, float] | None:
    low, high = (as_float(scores.get(f"{features.column}{side}")) for side in ("_low", "_high"))
    return None if low is None or high is None else (low, high)
