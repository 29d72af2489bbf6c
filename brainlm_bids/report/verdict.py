"""What a table of decodings shows, in words: the default readout beside baselines and controls.

Sources are compared by the metric of the permutation test, R² or AUC, and by the interval of their
difference; where that was not recorded, by whether their own intervals overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from brainlm_bids.cohort.sources import BASELINE, CONTROL, EMBEDDING, Source, default_of, find
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.values import Row, as_float, joined, number

_SIGNIFICANT = 0.05
_NAMES = {"r2": "R²", "auc": "AUC"}
_BETTER, _WORSE, _UNDECIDED = "better than", "worse than", "undecided"


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


def best_of(scores: Sequence[Scored]) -> Scored | None:
    """The source with the largest score; None where no score is defined.

    Parameters
    ----------
    scores
        Of one target, by one metric.
    """
    known = [(one.value, -place) for place, one in enumerate(scores) if one.value is not None]
    return scores[-max(known)[1]] if known else None


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
    sentences = [_chance(own)]
    if own.value is not None:
        sentences += _comparisons(own, scores, _NAMES[metric], compared)
        sentences += _highest(own, scores, _NAMES[metric])
    return " ".join(sentences)


def _chance(own: Scored) -> str:
    p, label = as_float(own.row.get("permutation_p")), _default(own)
    if p is None:
        return f"Without a permutation test it is not known whether {label} predicts this target."
    if p < _SIGNIFICANT:
        return f"{_sentence(label)} predicts this target better than chance (p = {number(p, 2)})."
    return (
        f"{_sentence(label)} does not predict this target better than chance (p = {number(p, 2)}, "
        f"not below {_SIGNIFICANT:g})."
    )


def _default(own: Scored) -> str:
    return f"the default readout ({own.source.label})"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _comparisons(
    own: Scored, scores: Sequence[Scored], metric: str, compared: Mapping[str, Any]
) -> list[str]:
    """A sentence on the best baseline, and one on the controls."""
    baseline = best_of([one for one in scores if one.source.role == BASELINE])
    others = {
        "the best baseline": [baseline] if baseline else [],
        "the control" + ("s" if len(_controls(own, scores)) > 1 else ""): _controls(own, scores),
    }
    value = number(own.value, 3)
    return [
        _compared(f"Its {metric} ({value})", what, own, chosen, compared)
        for what, chosen in others.items()
        if chosen
    ]


def _controls(own: Scored, scores: Sequence[Scored]) -> list[Scored]:
    """The untrained network with the same readout, and what has nothing to do with the network."""
    return [
        one
        for one in scores
        if one.source.role == CONTROL
        and (one.source.features != "untrained" or one.source[1:3] == own.source[1:3])
    ]


def _compared(
    subject: str,
    what: str,
    own: Scored,
    others: Sequence[Scored],
    compared: Mapping[str, Any],
) -> str:
    groups: dict[str, list[str]] = {}
    for other in others:
        result, numbers = _compare(own, other, mapping(compared.get(other.source.name)))
        groups.setdefault(result, []).append(f"{other.source.label} ({numbers})")
    parts = [
        f"{result} that of {what}, {joined(groups[result])}"
        for result in (_BETTER, _WORSE)
        if result in groups
    ]
    if _UNDECIDED in groups:
        parts.append(f"not distinguishable from that of {what}, {joined(groups[_UNDECIDED])}")
    return f"{subject} is {', and '.join(parts)}."


def _compare(own: Scored, other: Scored, found: Mapping[str, Any]) -> tuple[str, str]:
    """Better, worse or undecided; and the numbers that tell."""
    value = number(other.value, 3)
    low, high = as_float(found.get("Low")), as_float(found.get("High"))
    if low is not None and high is not None:
        gain = number(found.get("Difference"), 2)
        numbers = f"{value}; difference {gain} [{number(low, 2)}, {number(high, 2)}]"
        return _BETTER if low > 0 else _WORSE if high < 0 else _UNDECIDED, numbers
    mine, its = _interval(own.row), _interval(other.row)
    if mine is None or its is None:
        return _UNDECIDED, value
    numbers = f"{value} [{number(its[0], 3)}, {number(its[1], 3)}]"
    return _BETTER if mine[0] > its[1] else _WORSE if mine[1] < its[0] else _UNDECIDED, numbers


def _interval(row: Row) -> tuple[float, float] | None:
    low, high = (as_float(row.get(side)) for side in ("low", "high"))
    return None if low is None or high is None else (low, high)


def _highest(own: Scored, scores: Sequence[Scored], metric: str) -> list[str]:
    """Which source has the largest score, if it is not the default one."""
    best = best_of(scores)
    if best is None or best.source == own.source:
        return []
    text = f"The largest {metric} in the table is that of {best.source.label}"
    numbers = f" ({number(best.value, 3)})"
    if best.source.role == EMBEDDING:
        return [
            f"{text}{numbers}; a readout that is chosen by this table is chosen too favourably."
        ]
    return [f"{text}{numbers}."]
