"""What the reports say about networks of parcels: scores beside controls, and one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brainlm_bids.figures.palette import NETWORK_FEATURES
from brainlm_bids.report.best import best_rows, decimals
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.values import Row, as_float, joined, mean_of, mean_sd

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
    for kind, features, chosen in _groups(table):
        name = f"{kind}, {NETWORK_FEATURES.get(features, features)}"
        if kind == "recordings":
            lines.append((name, *(mean_sd(chosen, measure) for measure in MEASURES)))
        else:
            lines.append((name, *_cells(chosen[0])))
    return lines


def cohort_best(table: Sequence[Row]) -> frozenset[int]:
    """Lines of `cohort_rows` with the largest adjusted Rand index among those of their kind.

    Controls do not compete: they are the limit.
    """
    groups = _groups(table)
    best: set[int] = set()
    for kind in ("consensus", "recordings"):
        values = [
            mean_of(chosen, "adjusted_rand") if of == kind else None for of, _, chosen in groups
        ]
        if sum(value is not None for value in values) > 1:
            best |= best_rows(values, decimals)
    return frozenset(best)


def _groups(table: Sequence[Row]) -> list[tuple[str, str, list[Row]]]:
    """Kind, features and rows of each line, in the order of the lines."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for kind in ("consensus", "recordings", "control"):
        for row in table:
            if _kind(row) == kind:
                groups.setdefault((kind, row.get("features", "")), []).append(row)
    return [(kind, features, chosen) for (kind, features), chosen in groups.items()]


def cohort_verdicts(table: Sequence[Row]) -> list[str]:
    """Compare the model's networks with what smoothness reaches, and with connectivity's."""
    limit = next((row for row in table if row.get("features") == LIMIT), {})
    groups = {(kind, features): chosen for kind, features, chosen in _groups(table)}
    recordings = groups.get(("recordings", "model"), [])
    many = len(recordings) > 1
    means = {measure: mean_of(recordings, measure) for measure in MEASURES}
    consensus = groups.get(("consensus", "model"), [{}])[0]
    compared = (
        (consensus, "The consensus networks of the model"),
        (
            means,
            "The model's networks of single recordings, on average,"
            if many
            else "The model's networks of the recording",
        ),
    )
    sentences = [verdict(scores, limit, subject) for scores, subject in compared]
    others = groups.get(("consensus", "series"), [{}])[0]
    sentences.append(_beside_connectivity(consensus, others))
    return [sentence for sentence in sentences if sentence]


def _beside_connectivity(scores: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    """In which measures the model's consensus is closer to AA-7 than that of connectivity."""
    parts: dict[str, list[str]] = {"better": [], "equally well": [], "less well": []}
    for measure, name in MEASURES.items():
        value, other = as_float(scores.get(measure)), as_float(others.get(measure))
        if value is None or other is None:
            continue
        numbers = f"{name} ({value:.3f} against {other:.3f})"
        same = decimals(value) == decimals(other)
        result = "equally well" if same else "better" if value > other else "less well"
        parts[result].append(numbers)
    found = [f"{result} in {joined(names)}" for result, names in parts.items() if names]
    if not found:
        return ""
    return (
        "Compared with the consensus networks of functional connectivity, those of the model agree "
        f"with AA-7 {joined(found)}."
    )


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
        # a value that is written as its limit is not above it
        if value > high and decimals(value) != decimals(high):
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
