"""The methods text of a cohort, written from the sidecars and tables of the group level."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from brainlm_bids.bids.outputs import Naming
from brainlm_bids.report.clauses import counted, quoted
from brainlm_bids.report.manuscript import Block, Heading, Manuscript, Paragraph
from brainlm_bids.report.methods import closing
from brainlm_bids.report.methods_audit import audit_blocks
from brainlm_bids.report.methods_decoding import decoding_text
from brainlm_bids.report.methods_models import model_blocks
from brainlm_bids.report.methods_states import states_text
from brainlm_bids.report.run_records import Sidecar, gather_embeddings
from brainlm_bids.report.values import Row, as_float, read_json, read_tsv

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
                decoding_text(
                    [row for *_, rows in decodings for row in rows],
                    read_json(path.with_suffix(".json")),
                )
            ),
        ]
    blocks += audit_blocks(naming, models)
    paths = (naming.existing("states", model=label) for label in models)
    states = next((path for path in paths if path.is_file()), None)
    if states is not None:
        text = states_text(read_tsv(states), read_json(states.with_suffix(".json")))
        blocks += [Heading("Decoding of states"), Paragraph(text)]
    sidecars = [about, *embeddings.values(), *(one for run in runs for one in run.models.values())]
    return Manuscript((*blocks, *closing(sidecars)), NAME)


_CONSENSUS = (
    "Consensus networks were obtained by clustering the share of participants in whom two parcels "
    "were in the same cluster [@evidence]; a parcel has the most frequent one, with one vote per "
    "participant."
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
