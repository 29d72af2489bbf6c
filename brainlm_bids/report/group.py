"""The report of a cohort: an output folder in, `group.html` out.

Everything comes from the group's tables, sidecars and figures, so that `--reports-only` can write
the report again. Whatever was read is escaped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from brainlm_bids import files
from brainlm_bids.bids.derivatives import find_derivatives
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.notices import from_json, gravest_first
from brainlm_bids.report.clauses import counted
from brainlm_bids.report.figure_files import existing_figures, sections
from brainlm_bids.report.group_about import about_group
from brainlm_bids.report.group_model import Model, gather_model
from brainlm_bids.report.group_recordings import gather_lines
from brainlm_bids.report.measures import rule
from brainlm_bids.report.methods_group import cohort_methods
from brainlm_bids.report.page import Places, render
from brainlm_bids.report.places import INDEX
from brainlm_bids.report.single_file import with_pictures
from brainlm_bids.report.values import (
    Fact,
    Row,
    as_float,
    joined,
    number,
    read_json,
    read_tsv,
)

# The part of a model that the table of figures does not list; it stands first.
_WITHOUT_FIGURE = "Reconstruction"


def build_group_report(
    output_dir: Path,
    stem: str,
    space: str,
    atlas: str,
    *,
    version: str,
    single_file: bool = False,
) -> Path:
    """Write the report of a cohort from what the output folder holds.

    Files that are missing leave their part out. The report appears whole or not at all.

    Parameters
    ----------
    output_dir
        The folder of derivatives.
    stem
        How the names of the group's files begin.
    space, atlas
        Labels of the template and the atlas.
    version
        Version of this program, shown in the report.
    single_file
        Embed the pictures in the page.

    Returns
    -------
    Path
        The report, `output_dir/group.html`.
    """
    output_dir = Path(output_dir)
    naming = Naming(str(output_dir), stem, space, atlas, "cohort")
    recordings = read_tsv(naming.path("group_recordings"))
    scaling = read_json(naming.path("scaling", extension=".json"))
    sidecar = read_json(naming.path("group_recordings", extension=".json"))
    warnings = gravest_first(from_json(sidecar.get("Warnings")))
    labels = _models(naming)
    models = [gather_model(naming, label, warnings) for label in labels]
    # the group level writes the index right after this page, which does not depend on an older one
    text = render(
        "group.html.j2",
        Places(index=INDEX),
        title=stem.replace("_", " · "),
        facts=_facts(recordings, scaling, sidecar, models),
        warnings=warnings,
        table=gather_lines(naming, recordings, labels),
        rule=rule(),
        lead=_lead(recordings, models),
        scaling=scaling_sentences(scaling, sidecar),
        figures=existing_figures(naming, "cohort"),
        models=models,
        cohort_parts=sections("cohort"),
        model_parts=[_WITHOUT_FIGURE, *sections("cohort_model")],
        about=about_group(naming, labels, sidecar, version),
        series_methods=(output_dir / "logs" / "CITATION.md").is_file(),
        methods=Markup(cohort_methods(naming, labels).section()),
    )
    if single_file:
        text = with_pictures(text, output_dir)
    return files.write_text(output_dir / "group.html", text)


def _models(naming: Naming) -> list[str]:
    """Labels of the models whose embeddings the folder holds."""
    found = find_derivatives(Path(naming.output_dir), ["group_embeddings"])
    return sorted(
        one.model
        for one in found
        if (one.naming.stem, one.naming.atlas) == (naming.stem, naming.atlas)
    )


def _lead(recordings: list[Row], models: list[Model]) -> str:
    """What the page is about: only what it has."""
    included = [row for row in recordings if row.get("status") == "included"]
    people = len({row.get("participant_id") for row in included})
    parts = ["scaling"]
    if models:
        parts += ["reconstruction", "embeddings", "networks"]
    if any(model.decodings.targets for model in models):
        parts.append("decoding")
    if any(model.states for model in models):
        parts.append("states")
    subject = f"{counted(len(included), 'recording')} of {counted(people, 'participant')}"
    return f"{subject}: {joined(parts)}."


def scaling_sentences(statistics: dict[str, Any], recordings: dict[str, Any]) -> list[str]:
    """Tell which statistics scaled the series, and what follows from it.

    Parameters
    ----------
    statistics
        Sidecar of the statistics of the cohort; empty where there is none.
    recordings
        Sidecar of the table of recordings: whether other statistics were given.

    Returns
    -------
    list of str
        Sentences.

    Examples
    --------
    >>> scaling_sentences({}, {"ScalingStatistics": "a.tsv", "ScalingStatisticsGiven": True})[0]
    'The series were scaled with the statistics in a.tsv, which --scaling-stats gave.'
    """
    if recordings.get("ScalingStatisticsGiven"):
        name = recordings.get("ScalingStatistics")
        text = f"The series were scaled with the statistics in {name}, which --scaling-stats gave."
        return [text]
    if "NumberOfRecordings" not in statistics:
        return ["The statistics with which the series were scaled are not recorded."]
    n_recordings = int(statistics["NumberOfRecordings"])
    n_people = int(statistics.get("NumberOfSubjects") or 0)
    volumes = statistics.get("VolumesPerRecording", "all")
    taken = "all volumes" if volumes == "all" else f"the first {volumes} volumes"
    over = (
        "of the recording itself"
        if n_recordings == 1
        else f"over {n_recordings} recordings of {counted(n_people, 'participant')}"
    )
    sentences = [
        "Each parcel was centred in each recording and then scaled with the parcel’s median and "
        f"interquartile range {over} ({taken} of each, {statistics.get('NumberOfVolumes', 'n/a')} "
        "in total)."
    ]
    if n_people > 1:
        sentences.append(
            "BrainLM’s training data were scaled in the same way: differences in amplitude between "
            "participants are preserved."
        )
    else:
        sentences.append("With one participant, no differences between participants are seen.")
    return [
        *sentences,
        "To scale other data with these statistics, pass "
        f"atlas-{statistics.get('Atlas')}_desc-cohort_scaling.tsv to --scaling-stats.",
    ]


def _facts(
    recordings: list[Row], scaling: dict[str, Any], sidecar: dict[str, Any], models: list[Model]
) -> list[Fact]:
    included = [row for row in recordings if row.get("status") == "included"]
    participants = {row.get("participant_id") for row in included}
    facts = [
        Fact("Recordings", str(len(included)), f"of {len(recordings)}"),
        Fact("Participants", str(len(participants))),
    ]
    for status in ("excluded", "failed"):
        count = sum(row.get("status") == status for row in recordings)
        if count or status == "excluded":
            note = "see the list below" if count else ""
            facts.append(Fact(status.capitalize(), str(count), note, bool(count)))
    for key, label, unit in (("mean_fd", "Mean FD", " mm"), ("coverage", "Coverage", "")):
        values = [v for row in included if (v := as_float(row.get(key))) is not None]
        if values:
            span = f"{number(min(values), 2)} to {number(max(values), 2)}{unit}"
            of = "" if len(values) == len(included) else f" of {counted(len(values), 'recording')}"
            note = f"median{of}; {span}" if len(values) > 1 else of.strip()
            facts.append(Fact(label, f"{number(float(np.median(values)), 2)}{unit}", note))
    if sidecar.get("ScalingStatisticsGiven"):
        facts.append(Fact("Scaling", "given", str(sidecar.get("ScalingStatistics"))))
    elif "NumberOfRecordings" in scaling:
        volumes = scaling.get("VolumesPerRecording", "all")
        each = "all volumes" if volumes == "all" else f"the first {volumes} volumes"
        text = counted(int(scaling["NumberOfRecordings"]), "recording")
        facts.append(Fact("Scaling computed from", text, f"{each} of each"))
    facts.append(Fact("Models", str(len(models)), ", ".join(model.label for model in models)))
    return facts
