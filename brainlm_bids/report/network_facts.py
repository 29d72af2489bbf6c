"""What the reports say about networks of parcels: scores beside controls, and one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from brainlm_bids.figures.palette import NETWORK_FEATURES
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.values import Row, as_float, joined, mean_sd

MEASURES = {
    "accuracy": "accuracy",
    "adjusted_rand": "adjusted Rand index",
    "knn_accuracy": "kNN accuracy",
    "knn_accuracy_distant": "kNN accuracy without neighbours",
}
LIMIT = "spatial_null_95"


def rows(scores: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Scores as a table: the features, and a cell for each of `MEASURES`.

    >>> rows({"model": {"accuracy": 0.5}})
    [('model', '0.500', 'n/a', 'n/a', 'n/a')]
    """
    return [
        (NETWORK_FEATURES.get(features, features), *_cells(mapping(of)))
        for features, of in scores.items()
    ]


def _cells(scores: Mapping[str, Any]) -> tuple[str, ...]:
    values = [as_float(scores.get(measure)) for measure in MEASURES]
    return tuple("n/a" if value is None else f"{value:.3f}" for value in values)


def cohort_rows(table: Sequence[Row]) -> list[tuple[str, ...]]:
    """The table of a cohort in few lines: its consensus, means over recordings, controls."""
    lines = []
    for kind in ("consensus", "recordings", "control"):
        group = [row for row in table if _kind(row) == kind]
        for features in dict.fromkeys(row.get("features", "") for row in group):
            chosen = [row for row in group if row.get("features", "") == features]
            name = f"{kind}, {NETWORK_FEATURES.get(features, features)}"
            if kind == "recordings":
                lines.append((name, *(mean_sd(chosen, measure) for measure in MEASURES)))
            else:
                lines.append((name, *_cells(chosen[0])))
    return lines


def cohort_verdicts(table: Sequence[Row]) -> list[str]:
    """Whether the consensus, and recordings on average, exceed what smoothness alone reaches."""
    limit = next((row for row in table if row.get("features") == LIMIT), {})
    chosen = [row for row in table if row.get("features") == "model"]
    consensus = next((row for row in chosen if _kind(row) == "consensus"), {})
    recordings = [row for row in chosen if _kind(row) == "recordings"]
    means = {
        measure: np.mean(values)
        for measure in MEASURES
        if (values := [v for row in recordings if (v := as_float(row.get(measure))) is not None])
    }
    compared = (
        (consensus, "The consensus networks of the model"),
        (means, "The model's networks of single recordings, on average,"),
    )
    sentences = [verdict(scores, limit, subject) for scores, subject in compared]
    return [sentence for sentence in sentences if sentence]


def _kind(row: Row) -> str:
    """The consensus of the cohort, a control that is the same for all, or one of the recordings."""
    who = row.get("participant_id", "")
    return who if who in ("consensus", "control") else "recordings"


def verdict(scores: Mapping[str, Any], limit: Mapping[str, Any], subject: str) -> str:
    """Say in which measures scores exceed what smoothness over space alone reaches.

    Parameters
    ----------
    scores
        By measure.
    limit
        The 95th percentiles of random features that are smooth over space, by measure.
    subject
        What was compared, in the plural.

    Returns
    -------
    str
        A sentence; empty where nothing can be compared.

    Examples
    --------
    >>> text = verdict({"accuracy": 0.5}, {"accuracy": 0.4}, "Networks")
    >>> text.startswith("Networks agree with AA-7 better than smoothness over space alone explains")
    True
    """
    above, below = [], []
    for measure, name in MEASURES.items():
        value, high = as_float(scores.get(measure)), as_float(limit.get(measure))
        if value is None or high is None:
            continue
        if value > high:
            above.append(f"{name} ({value:.3f}, limit {high:.3f})")
        else:
            below.append(f"{name} ({value:.3f}, limit {high:.3f})")
    if not above and not below:
        return ""
    better = "better than smoothness over space alone explains"
    if above and below:
        found = f"{better} in {joined(above)}, but not in {joined(below)}"
    elif above:
        found = f"{better}: {joined(above)}"
    else:
        found = f"no {better}: {joined(below)}"
    return (
        f"{subject} agree with AA-7 {found}. The limits are the 95th percentiles of random fields "
        "that are only smooth over space."
    )
