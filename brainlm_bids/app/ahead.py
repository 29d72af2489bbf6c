"""The steps of a call that are counted before their graph is built, so that its total is known.

When a graph is built, its steps take the place of those that begin with the same key.
"""

from collections.abc import Collection, Iterable, Sequence

from brainlm_bids.bids.names import GROUP, with_prefix
from brainlm_bids.cohort.sources import LINEAR, STATE_SOURCES, selected
from brainlm_bids.progress import Step
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.costs import KINDS, expected_seconds
from brainlm_bids.workflows.embedding import embedded_together

STATISTICS, RECORDINGS, TABLES = (f"ahead/{part}/" for part in ("statistics", "series", "tables"))
ALL = "ahead/"


def report_steps(subjects: Iterable[str]) -> dict[str, Step]:
    """The reports of some subjects, by the keys `report_key`."""
    words, weight = KINDS["report"].words, expected_seconds("report")
    return {
        report_key(subject): Step(f"{with_prefix('sub', subject)}: {words}", "report", weight)
        for subject in subjects
    }


def report_key(subject: str) -> str:
    """Key of the step that writes the report of a subject, or of the group."""
    return f"report {subject}"


def group_steps(settings: Settings, n: int, labels: Collection[str]) -> dict[str, Step]:
    """The steps of the group level.

    Parameters
    ----------
    settings : Settings
        Of the call.
    n : int
        Number of its recordings.
    labels : collection of str
        Of its models.
    """
    from brainlm_bids.workflows.group import RECORDINGS_TOGETHER

    statistics = ["collect"] * -(-n // RECORDINGS_TOGETHER) + ["merge", "merge", "pool"]
    steps = _steps(STATISTICS, statistics)
    for place in range(n):
        steps |= recording_steps(f"{place}", ["scale"], labels)
    tables = ["draw", *(["connectivity"] if labels else [])]
    for _ in labels:
        tables += ["tables", "networks", "audit", *_decoded(settings, n)]
    words = f"{GROUP}: {KINDS['report'].words}"
    report = {report_key(GROUP): Step(words, "report", expected_seconds("report"))}
    return steps | _steps(TABLES, tables) | report


def recording_steps(
    recording: str, nodes: Sequence[str], labels: Collection[str]
) -> dict[str, Step]:
    """The steps of one recording at group level: scaling, and the models that are to be run."""
    steps = _steps(f"{RECORDINGS}{recording}/", nodes)
    for label in labels:
        step = Step(f"model {label}", f"model {label}", expected_seconds("model", model=label))
        steps[f"{RECORDINGS}{recording}/{label}"] = step
    return steps


def _decoded(settings: Settings, n: int) -> list[str]:
    """Nodes of what is decoded from one model, and of the features of the control."""
    parts, nodes = len(embedded_together(n)), []
    features = ["embed"] * parts + ["gather", "merge", "merge"]
    if settings.target:
        decoders = len(settings.target) * len(selected(settings.readouts))
        nodes += features + ["decode"] * decoders + ["merge", "decoding"]
    if not settings.target or LINEAR not in settings.readouts:
        nodes += features
    if settings.decode_states:
        decoders = sum(source.kind in settings.readouts for source in STATE_SOURCES)
        nodes += ["blocks"] * parts + ["states"] * decoders + ["merge", "merge", "write_states"]
    return nodes


def _steps(key: str, nodes: Sequence[str]) -> dict[str, Step]:
    return {
        f"{key}{place}": Step(KINDS[node].words, node, expected_seconds(node))
        for place, node in enumerate(nodes)
    }
