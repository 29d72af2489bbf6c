"""The methods text of a cohort, written from the sidecars and tables of the group level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brainlm_bids.bids.outputs import Naming
from brainlm_bids.report.clauses import counted, quoted, span
from brainlm_bids.report.manuscript import Block, Heading, Manuscript, Paragraph
from brainlm_bids.report.methods import closing
from brainlm_bids.report.methods_models import model_blocks
from brainlm_bids.report.run_records import Sidecar, gather_embeddings
from brainlm_bids.report.values import Row, as_float, joined, read_json, read_tsv

NAME = "CITATION_group"


def cohort_methods(naming: Naming, models: Sequence[str]) -> Manuscript:
    """Describe how a cohort was analysed.

    Parameters
    ----------
    naming
        Of the group's files.
    models
        Labels of the models whose tables the group level wrote.

    Returns
    -------
    Manuscript
        The text.
    """
    about = read_json(naming.path("group_recordings", extension=".json"))
    rows = read_tsv(naming.path("group_recordings"))
    scaling = read_json(naming.path("scaling", extension=".json"))
    embeddings = {
        label: read_json(naming.existing("group_embeddings", model=label, extension=".json"))
        for label in models
    }
    given = [one.get("ScalingStatistics") for one in embeddings.values()]
    blocks: list[Block] = [
        Heading("Methods", 1),
        Heading("Recordings"),
        Paragraph(f"{_recordings(rows)} {_exclusions(rows, about)}"),
        Heading("Scaling across participants"),
        Paragraph(_scaling(scaling, next(iter(given), None))),
    ]
    included = {row.get("recording") for row in rows if row.get("status") == "included"}
    runs = gather_embeddings(Path(naming.output_dir), "cohort", included)
    blocks += model_blocks(runs)
    if embeddings:
        blocks.append(Paragraph(_CONSENSUS))
    decodings = [
        (label, path, read_tsv(path))
        for label in models
        if (path := naming.existing("decoding", model=label)).is_file()
    ]
    if decodings:
        _, path, _ = decodings[0]
        blocks += [
            Heading("Decoding"),
            Paragraph(
                _decoding(
                    [row for *_, rows in decodings for row in rows],
                    read_json(path.with_suffix(".json")),
                )
            ),
        ]
    sidecars = [about, *embeddings.values(), *(one for run in runs for one in run.models.values())]
    return Manuscript((*blocks, *closing(sidecars)), NAME)


_CONSENSUS = (
    "The consensus network of a parcel is its most frequent network, with one vote per participant."
)


def _recordings(rows: Sequence[Row]) -> str:
    included = [row for row in rows if row.get("status") == "included"]
    people = len({row.get("participant_id") for row in included})
    return (
        f"The analysis comprised {counted(len(included), 'recording')} of "
        f"{counted(people, 'participant')}, out of {counted(len(rows), 'recording')}; their "
        "preprocessing is described in CITATION."
    )


def _exclusions(rows: Sequence[Row], about: Sidecar) -> str:
    least, most = (
        as_float(about.get(key)) for key in ("MinimumCoverage", "MaximumMeanFramewiseDisplacement")
    )
    limits = []
    if least is not None:
        limits.append(f"whose parcels were on average covered by a fraction of less than {least:g}")
    if most is not None:
        limits.append(f"whose mean framewise displacement was above {most:g} mm")
    if about.get("SuspectRegistrations") == "excluded":
        limits.append(
            "whose registration had probably failed (contrast and cost at the boundary of white "
            "matter, overlap of brain masks)"
        )
    if not limits:
        return ""
    excluded = sum(row.get("status") == "excluded" for row in rows)
    failed = sum(row.get("status") == "failed" for row in rows)
    text = f"Recordings {' or '.join(limits)} were excluded (excluded: {excluded})."
    return f"{text} Not finished, or not readable: {failed}." if failed else text


def _scaling(scaling: Sidecar, statistics: object) -> str:
    volumes = scaling.get("VolumesPerRecording")
    source = str(statistics or "")
    computed = volumes is not None and (not source or "desc-cohort_scaling" in source)
    if not computed:
        given = f"in {quoted(source)}" if source else "that were given"
        return f"Series were scaled with the medians and interquartile ranges {given}."
    part = "all volumes" if volumes == "all" else f"the first {quoted(volumes)} volumes"
    number = scaling.get("NumberOfRecordings")
    of = f"all {number} recordings" if number else "all recordings"
    return (
        "The mean of each parcel over time was removed from every recording. Recordings were then "
        "scaled with the median and the interquartile range of each parcel over "
        f"{part} of {of} together, as in the training data of BrainLM [@brainlm]."
    )


def _decoding(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    targets = list(dict.fromkeys(row["target"] for row in rows))
    if not targets:
        return "No target could be decoded."
    kinds = {row["target"]: row.get("type", "") for row in rows}
    ridge = [quoted(name) for name in targets if kinds[name] == "regression"]
    classes = [quoted(name) for name in targets if kinds[name] == "classification"]
    kinds_of = {"ridge regression": ridge, "L2-penalised logistic regression": classes}
    used = {name: columns for name, columns in kinds_of.items() if columns}
    models = [
        f"{name} ({joined(columns)})" if len(used) > 1 else name for name, columns in used.items()
    ]
    numbers = {key: [as_float(row.get(key)) or 0 for row in rows] for key in _COUNTS}
    n_recordings, n_subjects, n_repeats = (span(numbers[key]) for key in _COUNTS)
    repeated = (
        "This was done once."
        if n_repeats == "1"
        else f"This was done {n_repeats} times with different folds, and predictions were averaged."
    )
    confounds = [quoted(name) for name in about.get("RegressedOut") or []]
    removed = f", {_were(confounds)} regressed out of them [@snoek]," if confounds else ""
    outer, inner = about.get("OuterFolds", 5), about.get("InnerFolds", 3)
    permutations = about.get("Permutations")
    tested = (
        f"P values come from {permutations} permutations of the target between participants "
        "[@winkler]; the quality of a prediction was R² for numbers and the area under the curve "
        "for classes."
        if permutations
        else "No permutation test was made."
    )
    return (
        f"{_were([quoted(name) for name in targets])} decoded by {joined(models)} (scikit-learn "
        f"[@sklearn]) from the embedding, from functional connectivity (Fisher z), and from the "
        "embedding by the same architecture with random weights "
        f"({n_recordings} recordings of {n_subjects} participants). Cross-validation with {outer} "
        "folds kept all recordings of a participant in the same fold; features were "
        f"standardised{removed} and the penalty was chosen by {inner} inner folds, all within the "
        f"training folds. {repeated} Intervals are 95 % bootstrap intervals over participants; "
        "differences between features have intervals from the same resamples of participants. "
        f"{tested}"
    )


_COUNTS = ("n_recordings", "n_subjects", "n_repeats")


def _were(names: list[str]) -> str:
    return f"{joined(names)} {'was' if len(names) == 1 else 'were'}"
