"""What the report of a cohort says about the states that were decoded with one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from brainlm_bids.bids.outputs import Naming
from brainlm_bids.cohort.sources import STATE_SOURCES, Source
from brainlm_bids.report.best import best_rows, decimals, p_value
from brainlm_bids.report.clauses import counted
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.values import Row, as_float, joined, number, read_json, read_tsv
from brainlm_bids.report.verdict import Scored, comparisons, highest

_SIGNIFICANT = 0.05
_METRIC = "balanced_accuracy"


class StateLine(NamedTuple):
    """A source: its name, balanced accuracy with interval, AUC and p; how the row is marked."""

    cells: tuple[str, ...]
    default: bool
    best: bool


@dataclass
class States:
    """The states of one model: what was decoded, and how well from each source."""

    about: str = ""
    chance: str = ""
    p_values: str = ""
    lines: list[StateLine] = field(default_factory=list)
    # state, number of blocks, share that the default readout finds, what it is taken for
    by_state: list[tuple[str, ...]] = field(default_factory=list)
    verdict: str = ""
    notes: list[str] = field(default_factory=list)


def gather_states(naming: Naming, label: str) -> States | None:
    """Read the decoding of states; None if there is none.

    Parameters
    ----------
    naming
        Of the group's files.
    label
        Label of the model.
    """
    rows = read_tsv(naming.existing("states", model=label))
    if not rows:
        return None
    sidecar = read_json(naming.existing("states", model=label, extension=".json"))
    default = str(sidecar.get("DefaultReadout", ""))
    shown = [(one, found) for one in STATE_SOURCES if (found := _of_source(rows, one))]
    chance = as_float(mapping(sidecar.get("Chance")).get(_METRIC))
    first = rows[0]
    unit = str(sidecar.get("LeftOutTogether") or "participants")
    whole = "single blocks" if unit == "blocks" else f"whole {unit}"
    best = best_rows([as_float(found.get(_METRIC, {}).get("value")) for _, found in shown])
    result = States(
        about=(
            f"{counted(int(first['n_blocks']), 'block')} in "
            f"{counted(int(first['n_recordings']), 'recording')} of "
            f"{counted(int(first['n_subjects']), 'participant')}, "
            f"{first['n_folds']} folds of {whole}"
        ),
        chance=decimals(chance),
        p_values=str(sidecar.get("PermutationP") or ""),
        lines=[
            StateLine(_line(one, found), one.name == default, place in best)
            for place, (one, found) in enumerate(shown)
        ],
        by_state=_by_state(naming, label, default),
        verdict=_verdict(shown, default, chance),
        notes=[str(text) for text in sidecar.get("Notes") or []],
    )
    share = as_float(sidecar.get("ShareOfTimePatchesWithinBlocks"))
    if share is not None and share < 0.5:
        result.notes.append(
            f"The blocks are shorter than the time patches of the model: of a typical patch "
            f"{share:.0%} lies within the block, and the rest shows what came after it"
        )
    return result


def _of_source(rows: Sequence[Row], source: Source) -> dict[str, Row]:
    """The rows of a source by metric."""
    key = (source.features, source.readout, source.scaling)
    chosen = [row for row in rows if (row["features"], row["readout"], row["scaling"]) == key]
    return {row["metric"]: row for row in chosen}


def _line(source: Source, found: dict[str, Row]) -> tuple[str, ...]:
    def cell(metric: str) -> str:
        row = found.get(metric, {})
        text = decimals(as_float(row.get("value")))
        low, high = as_float(row.get("low")), as_float(row.get("high"))
        if low is None or high is None:
            return text
        return f"{text} [{decimals(low)}, {decimals(high)}]"

    p = p_value(as_float(found.get(_METRIC, {}).get("permutation_p")))
    return source.label, cell(_METRIC), cell("auc"), p


def _by_state(naming: Naming, label: str, default: str) -> list[tuple[str, ...]]:
    rows = read_tsv(naming.existing("state_confusion", model=label))
    source = next((one for one in STATE_SOURCES if one.name == default), None)
    if source is None:
        return []
    key = (source.features, source.readout, source.scaling)
    own = [row for row in rows if (row["features"], row["readout"], row["scaling"]) == key]
    lines: list[tuple[str, ...]] = []
    for state in dict.fromkeys(row["truth"] for row in own):
        counts = [int(row["n_blocks"]) for row in own if row["truth"] == state]
        right = [row["share"] for row in own if row["truth"] == state == row["predicted"]]
        found = decimals(as_float(right[0]) if right else 0.0)
        lines.append((state, str(sum(counts)), found, _taken_for(state, own)))
    return lines


def _taken_for(state: str, rows: Sequence[Row]) -> str:
    """Which other states the blocks of a state are most often taken for; all of them in a tie."""
    wrong = [row for row in rows if row["truth"] == state != row["predicted"]]
    most = max((int(row["n_blocks"]) for row in wrong), default=0)
    if not most:
        return "–"
    worst = [row for row in wrong if int(row["n_blocks"]) == most]
    names = joined([row["predicted"] for row in worst])
    each = " each" if len(worst) > 1 else ""
    return f"{names} ({number(worst[0]['share'], 2)}{each})"


def _verdict(
    shown: Sequence[tuple[Source, dict[str, Row]]], default: str, chance: float | None
) -> str:
    """The default readout beside chance, the best baseline and the controls."""
    scores = [
        Scored(source, found[_METRIC], as_float(found[_METRIC].get("value")))
        for source, found in shown
        if _METRIC in found
    ]
    own = next((one for one in scores if one.source.name == default), None)
    if own is None:
        return "The default readout is not in the table."
    if own.value is None:
        return f"The balanced accuracy of the default readout ({own.source.label}) is not defined."
    sentences = [_beside_chance(own, own.value, chance)]
    sentences += comparisons(own, scores, "balanced accuracy", {})
    sentences += highest(own, scores, "balanced accuracy")
    return " ".join(sentences)


def _beside_chance(own: Scored, value: float, chance: float | None) -> str:
    subject, p = f"The default readout ({own.source.label})", as_float(own.row["permutation_p"])
    level = "" if chance is None else f"; chance {decimals(chance)}"
    reached = f"{decimals(value)}{level}"
    if p is None:
        return f"{subject} reaches {reached}; p was not computed."
    numbers = f"({reached}; p = {p_value(p)})"
    if p >= _SIGNIFICANT:
        return f"{subject} does not find the states better than chance {numbers}."
    if chance is not None and value <= chance:
        return f"{subject} is better than with shuffled states, but not than chance {numbers}."
    return f"{subject} finds the states better than chance {numbers}."
