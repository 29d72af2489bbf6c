"""What a table of decodings shows, in words: the default readout beside baselines and controls.

Sources are compared by the metric of the permutation test, R² or AUC, and by the interval of their
difference; where that was not recorded, by whether their own intervals overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from brainlm_bids.cohort.sources import BASELINE, CONTROL, EMBEDDING, Source, default_of, find
from brainlm_bids.report.best import best_rows, decimals, p_value
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.values import Row, as_float, joined, number

_SIGNIFICANT = 0.05
_NAMES = {"r2": "R²", "auc": "AUC"}
# A score that is no better than this is of no use, even if permuted targets have lower ones
_CHANCE = {"r2": 0.0, "auc": 0.5}
_NOT_USEFUL = {
    "r2": "predicting the mean of the training data has no larger error",
    "auc": "it does not put the classes in the right order more often than not",
}
_BETTER, _WORSE = "better than", "worse than"
_UNDECIDED, _UNKNOWN = "not distinguishable from", "not comparable without intervals with"


class Scored(NamedTuple):
    """One source of a table of decodings, by the metric of the permutation test.

    Attributes
    ----------
    source
        What was decoded from.
    row
        Its row of the table.
    value
        Its score; None where it is not defined.
    """

    source: Source
    row: Row
    value: float | None


def ranked(rows: Sequence[Row], compared: Mapping[str, Any]) -> tuple[list[Scored], str]:
    """Scores of one target, by the metric of the permutation test.

    Parameters
    ----------
    rows
        Of the table of decodings, all of one target.
    compared
        The target's field in the sidecar's Comparisons; empty where none was recorded.

    Returns
    -------
    scores : list of Scored
        In the order of the table.
    metric : str
        "r2" or "auc".
    """
    present = {row["metric"] for row in rows}
    metric = str(compared.get("Metric") or ("r2" if "r2" in present else "auc"))
    scores = [
        Scored(source_of(row), row, as_float(row.get("value")))
        for row in rows
        if row["metric"] == metric
    ]
    return scores, metric


def source_of(row: Row) -> Source:
    """The source of a row of a table of decodings.

    Parameters
    ----------
    row
        With the cells `features`, `readout` and `scaling`.
    """
    return find(row["features"], row["readout"], row["scaling"])


def best_of(scores: Sequence[Scored]) -> list[Scored]:
    """The sources with the largest score, as the table shows it; none where no score is defined.

    Parameters
    ----------
    scores
        Of one target, by one metric.
    """
    places = best_rows([one.value for one in scores])
    return [one for place, one in enumerate(scores) if place in places]


def verdict(rows: Sequence[Row], compared: Mapping[str, Any]) -> str:
    """What the scores of a target show.

    Parameters
    ----------
    rows
        Of the table of decodings, all of one target.
    compared
        The target's field in the sidecar's Comparisons; empty where none was recorded.

    Returns
    -------
    str
        Some sentences.
    """
    scores, metric = ranked(rows, compared)
    default = default_of([one.source for one in scores])
    own = next((one for one in scores if one.source == default), None)
    if own is None:
        return "No readout of the embedding is in the table."
    if own.value is None:
        return f"The {_NAMES[metric]} of {_default(own)} is not defined."
    sentences = [_chance(own, metric)]
    sentences += comparisons(own, scores, _NAMES[metric], compared)
    sentences += highest(own, scores, _NAMES[metric])
    return " ".join(sentences)


def _chance(own: Scored, metric: str) -> str:
    p, label = as_float(own.row.get("permutation_p")), _default(own)
    if p is None:
        return f"Without a permutation test it is not known whether {label} predicts this target."
    if p >= _SIGNIFICANT:
        return (
            f"{_sentence(label)} does not predict this target better than chance "
            f"(p = {p_value(p)}, not below {_SIGNIFICANT:g})."
        )
    found = f"{_sentence(label)} predicts this target better than chance (p = {p_value(p)})"
    if own.value is None or own.value > _CHANCE[metric]:
        return f"{found}."
    return (
        f"{found}, although its {_NAMES[metric]} ({decimals(own.value)}) is not above "
        f"{_CHANCE[metric]:g}: {_NOT_USEFUL[metric]}."
    )


def _default(own: Scored) -> str:
    return f"the default readout ({own.source.label})"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def comparisons(
    own: Scored, scores: Sequence[Scored], metric: str, compared: Mapping[str, Any]
) -> list[str]:
    """Compare one source with the best baseline, and with the controls.

    Parameters
    ----------
    own
        The source; its score is defined.
    scores
        Of all sources, by the same metric.
    metric
        Its name.
    compared
        The target's field in the sidecar's Comparisons; empty where none was recorded.

    Returns
    -------
    list of str
        A sentence for each.
    """
    baselines = best_of([one for one in scores if one.source.role == BASELINE])
    word = "the best baselines" if len(baselines) > 1 else "the best baseline"
    subject = f"Its {metric} ({decimals(own.value)})"
    others = ((word, word, baselines), ("the controls", "the control", _controls(own, scores)))
    return [
        _compared(subject, several, single, own, chosen, compared)
        for several, single, chosen in others
        if chosen
    ]


def _controls(own: Scored, scores: Sequence[Scored]) -> list[Scored]:
    """The untrained network with the same readout, and what has nothing to do with the network."""
    return [
        one
        for one in scores
        if one.source.role == CONTROL
        and one.value is not None
        and (one.source.features != "untrained" or one.source[1:3] == own.source[1:3])
    ]


def _compared(
    subject: str,
    several: str,
    single: str,
    own: Scored,
    others: Sequence[Scored],
    compared: Mapping[str, Any],
) -> str:
    """A sentence about one source beside others, with all numbers that it depends on."""
    groups: dict[str, list[str]] = {}
    for other in others:
        result, numbers = compare(own, other, mapping(compared.get(other.source.name)))
        groups.setdefault(result, []).append(f"{other.source.label} ({numbers})")
    parts = []
    for result in (_BETTER, _WORSE, _UNDECIDED, _UNKNOWN):
        if result in groups:
            names = groups[result]
            what = several if len(names) > 1 else single
            parts.append(f"{result} that of {what}, {joined(names)}")
    return f"{subject} is {'; and '.join(parts)}."


def compare(own: Scored, other: Scored, found: Mapping[str, Any]) -> tuple[str, str]:
    """Better, worse, undecided or unknown; and the numbers that tell.

    Parameters
    ----------
    own, other
        The two sources.
    found
        The difference of their scores, with the fields Difference, Low and High; empty where none
        was recorded.
    """
    value = decimals(other.value)
    low, high = as_float(found.get("Low")), as_float(found.get("High"))
    if low is not None and high is not None:
        gain = number(found.get("Difference"), 2)
        numbers = f"{value}; difference {gain} [{number(low, 2)}, {number(high, 2)}]"
        return _BETTER if low > 0 else _WORSE if high < 0 else _UNDECIDED, numbers
    mine, its = _interval(own.row), _interval(other.row)
    if mine is None or its is None:
        return _UNKNOWN, f"{value}; without an interval"
    numbers = f"{value} [{decimals(its[0])}, {decimals(its[1])}]"
    return _BETTER if mine[0] > its[1] else _WORSE if mine[1] < its[0] else _UNDECIDED, numbers


def _interval(row: Row) -> tuple[float, float] | None:
    low, high = (as_float(row.get(side)) for side in ("low", "high"))
    return None if low is None or high is None else (low, high)


def highest(own: Scored, scores: Sequence[Scored], metric: str) -> list[str]:
    """Name the sources with the largest score, if one source is not among them.

    Parameters
    ----------
    own
        The source.
    scores
        Of all sources, by the same metric.
    metric
        Its name.

    Returns
    -------
    list of str
        A sentence, or none.
    """
    best = best_of(scores)
    if own in best:
        return []
    names = joined([one.source.label for one in best])
    text = f"The largest {metric} in the table is that of {names} ({decimals(best[0].value)})"
    if any(one.source.role == EMBEDDING for one in best):
        return [f"{text}; a readout that is chosen by this table is chosen too favourably."]
    return [f"{text}."]
