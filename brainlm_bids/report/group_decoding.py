"""What the report of a cohort says about the decoding of targets with one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from brainlm_bids.bids.outputs import Naming
from brainlm_bids.cohort.sources import BASELINE, CONTROL, EMBEDDING, Source, default_of
from brainlm_bids.report.best import decimals, p_value
from brainlm_bids.report.clauses import counted
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.values import Row, as_float, joined, number, read_json, read_tsv
from brainlm_bids.report.verdict import best_of, ranked, source_of, verdict

_METRICS = {
    "mse": "Mean squared error",
    "mae": "Mean absolute error",
    "r2": "R²",
    "pearson_r": "Pearson r",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "auc": "AUC",
}
_READOUTS = {"cls": "the CLS token", "mean": "the mean token", "attentive": "an attentive probe"}
_FEATURES = {
    "connectivity": "functional connectivity",
    "series": "the parcel series",
    "motion": "motion and coverage",
    "untrained": "the embedding by an untrained network",
    "coordinates": "coordinates of the parcels",
}


@dataclass(frozen=True)
class ReadoutLine:
    """One source of a decoding: a cell per metric, and the p value."""

    label: str
    role: str
    cells: list[str]
    default: bool
    best: bool


@dataclass(frozen=True)
class Decoding:
    """One target: a line per source; `rule` tells which line is marked as the best."""

    target: str
    about: str
    metrics: list[str]
    lines: list[ReadoutLine]
    rule: str
    verdict: str
    notes: list[str]


@dataclass
class Decodings:
    """What was decoded with one model, and what was not.

    Attributes
    ----------
    targets
        Those that were decoded.
    about
        How, in sentences.
    not_decoded
        Names of targets, and why.
    notes
        What was assumed about other columns: their names, and a text.
    """

    targets: list[Decoding] = field(default_factory=list)
    about: str = ""
    not_decoded: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)


def gather_decodings(naming: Naming, label: str) -> Decodings:
    """Read the decoding of targets.

    Parameters
    ----------
    naming
        Of the group's files.
    label
        Label of the model.
    """
    rows = read_tsv(naming.existing("decoding", model=label))
    sidecar = read_json(naming.existing("decoding", model=label, extension=".json"))
    found = Decodings(
        not_decoded=list(_texts(sidecar, "NotDecoded").items()),
    )
    if rows and "features" not in rows[0]:
        text = "the table is one of an older version: run the group level again"
        found.not_decoded.append(("decoding", text))
        rows = []
    notes = _texts(sidecar, "Notes")
    for target in dict.fromkeys(row["target"] for row in rows):
        lines = [row for row in rows if row["target"] == target]
        compared = mapping(mapping(sidecar.get("Comparisons")).get(target))
        unit = str(mapping(sidecar.get("Units")).get(target, "recording"))
        own = [notes.pop(target)] if target in notes else []
        found.targets.append(_decoding(target, unit, lines, compared, own))
    found.notes = list(notes.items())
    if rows:
        sources = list(dict.fromkeys(source_of(row) for row in rows))
        found.about = " ".join([_how(sources), *_taken_into_account(sidecar)])
    return found


def _texts(sidecar: Mapping[str, Any], key: str) -> dict[str, str]:
    return {
        str(name): "; ".join(map(str, text)) if isinstance(text, list) else str(text)
        for name, text in mapping(sidecar.get(key)).items()
    }


def _decoding(
    target: str, unit: str, rows: Sequence[Row], compared: Mapping[str, Any], notes: list[str]
) -> Decoding:
    first = rows[0]
    unit = {"subject": "participant"}.get(unit, unit)
    about = (
        f"{first['type'].capitalize()}, {counted(int(first['n_recordings']), 'recording')} of "
        f"{counted(int(first['n_subjects']), 'participant')}, one prediction for each {unit}."
    )
    scores, metric = ranked(rows, compared)
    best, default = best_of(scores), default_of([one.source for one in scores])
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    lines = []
    for one in scores:
        own = {row["metric"]: row for row in rows if source_of(row) == one.source}
        cells = [_cell(own.get(name, {})) for name in metrics]
        cells.append(p_value(as_float(one.row.get("permutation_p"))))
        label, is_default = _sentence(one.source.label), one.source == default
        lines.append(ReadoutLine(label, one.source.role, cells, is_default, one in best))
    titles = [*(_METRICS.get(name, name) for name in metrics), "p"]
    rule = (
        f"Best: the largest {_METRICS[metric]}; equal values are all marked. The best of several "
        "rows is too good by selection."
    )
    return Decoding(target, about, titles, lines, rule, verdict(rows, compared), notes)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cell(row: Row) -> str:
    """A score with its interval; errors have the unit of the target, and no fixed decimals."""
    in_units = row.get("metric") in ("mse", "mae")

    def written(value: float | None) -> str:
        return number(value, 3) if in_units else decimals(value)

    value, low, high = (as_float(row.get(key)) for key in ("value", "low", "high"))
    interval = "" if low is None or high is None else f" [{written(low)}, {written(high)}]"
    return f"{written(value)}{interval}"


def _how(sources: Sequence[Source]) -> str:
    """What targets were decoded from: only what is in the table."""
    own = [one for one in sources if one.role == EMBEDDING]
    readouts = [text for name, text in _READOUTS.items() if any(s.readout == name for s in own)]
    scalings = list(dict.fromkeys(one.scaling for one in own))
    scaled = joined([f"the {name}’s" for name in scalings])
    parts = []
    if own:
        word = "statistics" if len(scalings) == 1 else "statistics in turn"
        parts.append(f"from the embedding by {joined(readouts)}, scaled by {scaled} {word}")
    for role, purpose in (
        (BASELINE, "which an embedding must exceed to be of use"),
        (CONTROL, "which it must exceed to have learned something"),
    ):
        kinds = dict.fromkeys(one.features for one in sources if one.role == role)
        if kinds:
            names = joined([_FEATURES.get(kind, kind) for kind in kinds])
            parts.append(f"from {role}s ({names}), {purpose}")
    return (
        f"Targets were predicted {'; and '.join(parts)}. Cross-validation is nested, and all "
        "recordings of a participant are in the same fold."
    )


def _taken_into_account(sidecar: Mapping[str, Any]) -> list[str]:
    """What was done about confounds and sites, in a sentence each."""
    how, column = mapping(sidecar.get("Harmonization")), sidecar.get("FoldsBy")
    removed = [str(name) for name in sidecar.get("RegressedOut") or []]
    within = [str(name) for name in sidecar.get("PermutedWithin") or []]
    parts = []
    if removed:
        parts.append(f"{joined(removed)}: regressed out of the features in the training folds.")
    if how:
        parts.append(
            f"Effects of {how.get('Column')} were removed from the features by ComBat, estimated "
            f"in the training folds{_kept(mapping(how.get('Kept')))}."
        )
    if column:
        parts.append(
            f"Each value of {column} was predicted by a model of the others: R² is relative to its "
            "own mean, and the other scores are those within it."
        )
    if within:
        parts.append(f"Targets were permuted between participants with the same {joined(within)}.")
    if sidecar.get("ReadoutsLeftOut"):
        parts.append(f"Left out: {sidecar['ReadoutsLeftOut']}.")
    return parts


def _kept(of_targets: Mapping[str, Any]) -> str:
    """Which effects ComBat kept, apart for targets where they differ."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for target, names in of_targets.items():
        groups.setdefault(tuple(map(str, names)), []).append(target)
    if not any(groups):
        return ""
    if len(groups) == 1:
        return f", keeping effects of {joined(list(next(iter(groups))))}"
    parts = [
        f"of {joined(list(names))} for {joined(targets)}"
        for names, targets in groups.items()
        if names
    ]
    return f", keeping effects {'; '.join(parts)}"
