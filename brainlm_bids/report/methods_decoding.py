"""The methods text of decoding, written from the table of decodings and its sidecar."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from brainlm_bids.cohort.sources import ATTENTIVE, LINEAR, MLP, Source
from brainlm_bids.report.clauses import quoted, span
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.values import Row, as_float, joined
from brainlm_bids.report.verdict import source_of

_READOUTS = {
    "cls": "the CLS token",
    "mean": "the mean token",
    ATTENTIVE: "an attentive probe of all tokens (one learnt query)",
}
_BASELINES = {
    "connectivity": "functional connectivity (Fisher z)",
    "series": "a multilayer perceptron on the parcel series",
    "motion": "motion, coverage, length and repetition time",
}
_SCALINGS = {
    "recording": "the statistics of the recording itself",
    "cohort": "those of the cohort",
}
_NO_TEST = "No permutation test was made."


def decoding_text(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    """Describe how targets were decoded.

    Parameters
    ----------
    rows
        Of the tables of decodings.
    about
        The sidecar of one of them.

    Returns
    -------
    str
        A paragraph.
    """
    targets = list(dict.fromkeys(row["target"] for row in rows))
    if not targets:
        return "No target could be decoded."
    sources = list(dict.fromkeys(source_of(row) for row in rows if "features" in row))
    sentences = [
        f"{_were([quoted(name) for name in targets])} decoded by {_models(rows, targets)} "
        f"(as in scikit-learn [@sklearn]) {_from(sources)} ({_counts(rows)}).",
        _units(mapping(about.get("Units"))),
        _validation(rows, about),
        _probes(sources),
        "Intervals are 95 % bootstrap intervals over participants; differences between sources "
        "have intervals from the same resamples of participants.",
        _tested(sources, about),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _models(rows: Sequence[Row], targets: Sequence[str]) -> str:
    kinds = {row["target"]: row.get("type", "") for row in rows}
    by_model = {
        "ridge regression": [quoted(n) for n in targets if kinds[n] == "regression"],
        "L2-penalised logistic regression": [
            quoted(n) for n in targets if kinds[n] == "classification"
        ],
    }
    used = {name: columns for name, columns in by_model.items() if columns}
    return joined(
        [f"{name} ({joined(columns)})" if len(used) > 1 else name for name, columns in used.items()]
    )


def _from(sources: Collection[Source]) -> str:
    def among(features: str, names: Mapping[str, str], attribute: str) -> list[str]:
        own = {getattr(one, attribute) for one in sources if one.features == features}
        return [text for key, text in names.items() if key in own]

    readouts = among("embedding", _READOUTS, "readout")
    scalings = among("embedding", _SCALINGS, "scaling")
    present = {one.features for one in sources}
    baselines = [text for key, text in _BASELINES.items() if key in present]
    parts = []
    if readouts:
        scaled = f", the series being scaled with {joined(scalings)}" if scalings else ""
        parts.append(f"from the embedding ({joined(readouts)}{scaled})")
    if baselines:
        parts.append(f"from the baselines {joined(baselines)}")
    controls = []
    if "untrained" in present:
        controls.append("the same readouts of the architecture with random weights")
    if "coordinates" in present:
        controls.append("the coordinates of the parcels that had data")
    if controls:
        parts.append(f"from the controls {joined(controls)}")
    return joined(parts)


def _counts(rows: Sequence[Row]) -> str:
    keys = ("n_recordings", "n_subjects")
    n_recordings, n_subjects = (span([as_float(row.get(key)) or 0 for row in rows]) for key in keys)
    return f"{n_recordings} recordings of {n_subjects} participants"


def _units(units: Mapping[str, Any]) -> str:
    groups: dict[str, list[str]] = {}
    for target, unit in units.items():
        groups.setdefault(str(unit), []).append(quoted(target))
    each = [f"{unit} ({joined(names)})" for unit, names in groups.items()]
    if not each:
        return ""
    text = f"What was predicted once was the {joined(each)}"
    if set(groups) <= {"recording"}:
        return f"{text}."
    return f"{text}; the features of its recordings were averaged, and their tokens joined."


def _validation(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    confounds = [quoted(name) for name in about.get("RegressedOut") or []]
    removed = f", {_were(confounds)} regressed out of them [@snoek]," if confounds else ""
    column = about.get("FoldsBy")
    inner = about.get("InnerFolds", 3)
    within = (
        f"features were standardised{removed} and the penalty was chosen by {inner} inner folds, "
        "all within the training folds."
    )
    linear = [row for row in rows if source_of(row).kind == LINEAR] or rows
    repeats = span([as_float(row.get("n_repeats")) or 0 for row in linear])
    repeated = (
        "This was done once."
        if repeats == "1"
        else f"This was done {repeats} times with different folds, and predictions were averaged."
    )
    if column is not None:
        return (
            f"Each value of {quoted(column)} was left out in turn and predicted by a model of the "
            f"participants with other values; {within} R² is relative to the mean of each value of "
            f"{quoted(column)}, and correlations and areas under the curve are those within them."
            f"{_harmonised(about)}"
        )
    folds = (
        f"Cross-validation with {about.get('OuterFolds', 5)} folds kept all recordings of a "
        f"participant in the same fold; {within}"
    )
    return f"{folds}{_harmonised(about)} {repeated}"


def _harmonised(about: Mapping[str, Any]) -> str:
    how = mapping(about.get("Harmonization"))
    if not how:
        return ""
    kept = {name for names in mapping(how.get("Kept")).values() for name in names}
    effects = f", keeping the effects of {joined([quoted(name) for name in sorted(kept)])}"
    return (
        f" Differences between the values of {quoted(how.get('Column', ''))} in the mean and the "
        "variance of each feature were removed by ComBat (parametric empirical Bayes) "
        f"[@johnson;@fortin]{effects if kept else ''}, estimated in the training folds."
    )


def _probes(sources: Collection[Source]) -> str:
    names = {ATTENTIVE: "The attentive probe", MLP: "the multilayer perceptron"}
    kinds = [name for kind, name in names.items() if any(one.kind == kind for one in sources)]
    if not kinds:
        return ""
    verb = "was" if len(kinds) == 1 else "were"
    text = (
        f"{joined(kinds)} {verb} trained once in each training fold; a part of its participants "
        "chose learning rate and weight decay and stopped the training."
    )
    return text[:1].upper() + text[1:]


def _tested(sources: Collection[Source], about: Mapping[str, Any]) -> str:
    permutations, sites = about.get("Permutations"), about.get("PermutedWithin") or []
    if not permutations:
        return _NO_TEST
    within = f" with the same value of {joined([quoted(name) for name in sites])}" if sites else ""
    kept = (
        " Readouts were refitted to each of them, except those that are trained, whose predictions "
        "were kept while targets were permuted within the test folds."
        if any(one.kind != LINEAR for one in sources)
        else ""
    )
    return (
        f"P values come from {permutations} permutations of the target between participants"
        f"{within} [@winkler]; the quality of a prediction was R² for numbers and the area under "
        f"the curve for classes.{kept}"
    )


def _were(names: list[str]) -> str:
    return f"{joined(names)} {'was' if len(names) == 1 else 'were'}"
