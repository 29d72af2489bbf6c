"""How well masked values are predicted over a cohort: the table, its best rows, and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from brainlm_bids.report.best import best_rows, decimals
from brainlm_bids.report.clauses import counted
from brainlm_bids.report.model_facts import baseline_name, verdict
from brainlm_bids.report.values import Row, as_float, mean_of, mean_sd, number

_METRICS = ("mse", "mae", "r2", "pearson_r")


class MetricLine(NamedTuple):
    """A predictor of masked values over the cohort.

    Attributes
    ----------
    mask_ratio
        Share of the values that is masked, as text.
    predictor
        In words.
    cells
        Mean and standard deviation over recordings of MSE, MAE, R² and Pearson's r.
    n_recordings
        Recordings with an R².
    best
        Whether no predictor of the same mask ratio has a larger mean R², as the table shows it.
    """

    mask_ratio: str
    predictor: str
    cells: tuple[str, ...]
    n_recordings: int
    best: bool


def cohort_metrics(rows: Sequence[Row]) -> tuple[list[MetricLine], list[str]]:
    """Summarise the table of metrics of a cohort.

    Parameters
    ----------
    rows
        A row per recording, mask ratio and predictor.

    Returns
    -------
    lines : list of MetricLine
        In the order of the table.
    sentences : list of str
        One for each mask ratio with a model and another predictor.
    """
    lines: list[MetricLine] = []
    sentences: list[str] = []
    for ratio in dict.fromkeys(row.get("mask_ratio", "") for row in rows):
        own = [row for row in rows if row.get("mask_ratio", "") == ratio]
        groups = {
            name: [row for row in own if row.get("predictor", "") == name]
            for name in dict.fromkeys(row.get("predictor", "") for row in own)
        }
        means = [mean_of(group, "r2") for group in groups.values()]
        best = best_rows(means, decimals) if len(means) > 1 else frozenset()
        for place, (name, group) in enumerate(groups.items()):
            cells = tuple(mean_sd(group, key) for key in _METRICS)
            n_known = sum(as_float(row.get("r2")) is not None for row in group)
            shown = name.replace("_", " ")
            lines.append(MetricLine(number(ratio), shown, cells, n_known, place in best))
        sentences += _sentence(number(ratio), own)
    return lines, sentences


def _sentence(ratio: str, rows: Sequence[Row]) -> list[str]:
    """The model beside the others, on the recordings for which all have a score."""
    scores: dict[str, dict[str, float]] = {}
    for row in rows:
        value = as_float(row.get("r2"))
        if value is not None:
            scores.setdefault(row.get("recording", ""), {})[row.get("predictor", "")] = value
    names = list(dict.fromkeys(row.get("predictor", "") for row in rows))
    complete = [one for one in scores.values() if all(name in one for name in names)]
    if "model" not in names or len(names) < 2 or not complete:
        return []
    means = {
        name: float(decimals(sum(one[name] for one in complete) / len(complete))) for name in names
    }
    others = [name for name in names if name != "model"]
    best = max(others, key=lambda name: means[name])
    text = (
        f"With {ratio} of the values masked, the model {verdict(means)}, by the mean R² over "
        f"{counted(len(complete), 'recording')}."
    )
    if means["model"] <= 0:
        text += (
            f" Its mean R² ({decimals(means['model'])}) is not above 0: the mean of the values to "
            "be predicted has no larger error."
        )
    if len(complete) > 1:
        n_better = sum(one["model"] > one[best] for one in complete)
        text += (
            f" Its R² is larger than that of {baseline_name(best)} in {n_better} of "
            f"{len(complete)} recordings."
        )
    return [text]
