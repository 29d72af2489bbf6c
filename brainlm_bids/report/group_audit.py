"""What the report of a cohort says about site, motion and reliability in a model's embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from brainlm_bids.bids.outputs import Naming
from brainlm_bids.report.best import best_rows
from brainlm_bids.report.clauses import counted
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.values import Row, as_float, joined, number, read_json, read_tsv

FEATURES = {
    "embedding": "Embedding",
    "connectivity": "Functional connectivity",
    "untrained": "Untrained network",
}
_SINGLE = {"mean_fd": "Mean FD", "coverage": "Coverage"}
_SIGNIFICANT = 0.05
# Measures of the table of confounding that the page shows, and whether they are shares
SHARE = "variance_share_adjusted"
_MEASURES = {
    SHARE: ("Share of the variance, above chance", True),
    "balanced_accuracy": ("Decoded in held-out participants, balanced accuracy", False),
    "pearson_r": ("Predicted in held-out participants, r", False),
    "median_absolute_r": ("Median |r| with single features", False),
    "largest_absolute_r": ("Largest |r| with a single feature", False),
    "share_significant": ("Features that go with it (false discovery rate 5 %)", True),
    "distance_rho": ("ρ of these r with the distance of the parcels", False),
}


@dataclass
class Audit:
    """What else is in the embedding of one model.

    Attributes
    ----------
    features
        Headings of the columns.
    lines
        Property, measure, and a cell for each kind of features.
    reliability
        Kind of features, ICC, share of good ones, identification, standardised, differential.
    most_reliable
        Lines of the features with the largest median ICC; single numbers do not compete.
    compared
        What the reliability is of, such as "2 sessions of 24 participants".
    not_measured
        Properties of which nothing can be said, and why.
    no_reliability
        Why there is no reliability; empty if there is.
    summary
        What the table of confounding shows, in words.
    """

    features: list[str] = field(default_factory=list)
    lines: list[tuple[str, str, list[str]]] = field(default_factory=list)
    reliability: list[tuple[str, ...]] = field(default_factory=list)
    most_reliable: frozenset[int] = frozenset()
    compared: str = ""
    not_measured: list[tuple[str, str]] = field(default_factory=list)
    no_reliability: str = ""
    summary: str = ""


def gather_audit(naming: Naming, label: str) -> Audit | None:
    """Read the tables of a model's audit.

    Parameters
    ----------
    naming
        Of the group's files.
    label
        Label of the model.

    Returns
    -------
    Audit or None
        None in a folder without them.
    """
    paths = [naming.path(key, model=label) for key in ("group_confounding", "group_reliability")]
    if not paths[0].is_file():
        return None
    confounding, reliable = (read_tsv(path) for path in paths)
    about, about_pairs = (read_json(path.with_suffix(".json")) for path in paths)
    kinds = [name for name in FEATURES if any(row["features"] == name for row in confounding)]
    audit = Audit([FEATURES[name] for name in kinds])
    cells = {(row["variable"], row["measure"], row["features"]): row for row in confounding}
    for variable in dict.fromkeys(row["variable"] for row in confounding):
        for measure, (title, is_share) in _MEASURES.items():
            found = [cells.get((variable, measure, kind)) for kind in kinds]
            if any(found):
                shown = [_cell(row, is_share) for row in found]
                audit.lines.append((variable, title, shown))
    audit.summary = _summary(confounding)
    audit.not_measured = [
        (str(name), str(text)) for name, text in mapping(about.get("NotMeasured")).items()
    ]
    audit.no_reliability = str(about_pairs.get("NotMeasured") or "")
    audit.reliability = _reliability(reliable)
    audit.most_reliable = _most_reliable(reliable)
    if reliable:
        first = reliable[0]
        task = f" (task {first['task']})" if first["task"] not in ("", "n/a") else ""
        people = counted(int(first["n_subjects"]), "participant")
        audit.compared = f"two {first['compared']} of each of {people}{task}"
    return audit


def _cell(row: Row | None, is_share: bool) -> str:
    """A value, its interval, what it is by chance, all in one unit; and p."""
    if row is None or as_float(row["value"]) is None:
        return "–"

    def written(value: object) -> str:
        return _percent(value) if is_share else number(value, 2)

    text = written(row["value"])
    low, high = as_float(row["low"]), as_float(row["high"])
    if low is not None and high is not None:
        text += f" [{written(low)}, {written(high)}]"
    chance, p = as_float(row["chance"]), as_float(row["p"])
    if chance:  # a chance of 0 needs no words
        text += f"; chance {written(chance)}"
    return text + (f"; p = {number(p, 2)}" if p is not None else "")


def _percent(value: object) -> str:
    converted = as_float(value)
    return "–" if converted is None else f"{100 * converted:.1f} %"


def _summary(rows: Sequence[Row]) -> str:
    """Which properties the embedding differs with, beside the other features; what follows."""
    shares = [row for row in rows if row["measure"] == SHARE]
    own = [row for row in shares if row["features"] == "embedding"]
    groups: dict[str, list[str]] = {"found": [], "absent": [], "unknown": []}
    for row in own:
        p, value = as_float(row["p"]), as_float(row["value"])
        if p is None or value is None:
            groups["unknown"].append(row["variable"])
            continue
        others = [
            f"{FEATURES.get(other['features'], other['features']).lower()} "
            f"{_percent(other['value'])}"
            for other in shares
            if other["variable"] == row["variable"] and other is not row
        ]
        numbers = f"{_percent(value)} of its variance above chance, p = {number(p, 2)}"
        if others:
            numbers += f"; {', '.join(others)}"
        kind = "found" if p < _SIGNIFICANT and value > 0 else "absent"
        groups[kind].append(f"{row['variable']} ({numbers})")
    sentences = []
    if groups["found"]:
        sentences.append(
            f"The embedding differs with {joined(groups['found'])}. A target that goes with one "
            "of these can be predicted through it: look at such targets with --regress-out as well."
        )
    if groups["absent"]:
        sentences.append(f"No difference was found with {joined(groups['absent'])}.")
    if groups["unknown"]:
        sentences.append(f"Not tested, since no permutation differs: {joined(groups['unknown'])}.")
    return " ".join(sentences)


def _reliability(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    names = {**FEATURES, **_SINGLE}
    for kind in dict.fromkeys(row["features"] for row in rows):
        of = {row["measure"]: row for row in rows if row["features"] == kind}
        value = {measure: number(row["value"], 2) for measure, row in of.items()}
        icc = value.get("icc_median", "–")
        if of and of["icc_median"]["n_features"] != "1":
            icc += f" [{value['icc_p25']}, {value['icc_p75']}]"
        lines.append(
            (
                names.get(kind, kind),
                icc,
                _percent(of.get("icc_share_good", {}).get("value")) if kind in FEATURES else "–",
                _rate(of.get("identification_rate")),
                _rate(of.get("identification_rate_standardised")),
                value.get("differential_identifiability", "–"),
            )
        )
    return lines


def _most_reliable(rows: Sequence[Row]) -> frozenset[int]:
    medians = {
        row["features"]: as_float(row["value"]) for row in rows if row["measure"] == "icc_median"
    }
    kinds = dict.fromkeys(row["features"] for row in rows)
    values = [medians.get(kind) if kind in FEATURES else None for kind in kinds]
    return best_rows(values, lambda value: number(value, 2))


def _rate(row: Row | None) -> str:
    if row is None:
        return "–"
    return f"{_percent(row['value'])}; chance {_percent(row['chance'])}; p = {number(row['p'], 2)}"
