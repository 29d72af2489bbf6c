"""Plan the decoding of states: blocks of events, or tasks, of the recordings of a cohort."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from brainlm_bids import __version__, files
from brainlm_bids.app.cohort import Cohort
from brainlm_bids.app.status import SKIPPED, Outcome
from brainlm_bids.bids import outputs
from brainlm_bids.bids.events import find_events, read_events
from brainlm_bids.bids.recordings import Recording
from brainlm_bids.cohort import sources, states
from brainlm_bids.cohort.states import Block
from brainlm_bids.errors import UserError
from brainlm_bids.settings import configuration_hash
from brainlm_bids.table import COHORT
from brainlm_bids.workflows.states import StateRecording, StatesPlan

# In place of a column of events: every window of a recording has the state of its task
TASK = "task"


@dataclass(frozen=True)
class _Found:
    """The blocks of one recording, and how its series is sampled."""

    recording: Recording
    blocks: list[Block]
    start: float
    tr: float
    n_volumes: int


def plan_states(cohort: Cohort, label: str, recordings: Sequence[Recording]) -> StatesPlan | None:
    """Find the states that can be decoded; None if there are none, or all is complete.

    Parameters
    ----------
    cohort : Cohort
        Whose settings ask for states.
    label : str
        Of the model.
    recordings : sequence of Recording
        Those that the model embedded.
    """
    settings = cohort.settings
    column = settings.decode_states
    assert column is not None
    try:
        plan = _plan(cohort, column, recordings)
    except UserError as error:
        cohort.report(f"states of {label}", Outcome(SKIPPED, f"--decode-states {column}: {error}"))
        return None
    configuration = configuration_hash(
        {
            "version": __version__,
            "embeddings": [(r.stem, cohort.embedding_key(r, label)) for r in recordings],
            "blocks": list(plan.blocks),
            "values": list(plan.values),
            "column": column,
            "sources": list(plan.sources),
            "delay": settings.state_delay,
            **settings.changing(COHORT),
        }
    )
    complete = outputs.is_complete(
        settings.output_dir,
        cohort.naming.stem,
        outputs.model_stage(label, cohort.naming.scaling, "states"),
        configuration,
    )
    return None if complete else plan.under(configuration)


def _plan(cohort: Cohort, column: str, recordings: Sequence[Recording]) -> StatesPlan:
    settings, notes = cohort.settings, list[str]()
    found = _found(cohort, column, recordings, notes)
    of_recordings: list[StateRecording] = []
    rows: list[dict[str, Any]] = []
    lost = 0
    for one in found:
        places = states.block_volumes(
            one.blocks,
            delay=0.0 if column == TASK else settings.state_delay,
            start=one.start,
            tr=one.tr,
            n_volumes=one.n_volumes,
        ).tolist()
        shown = [k for k, (first, end) in enumerate(places) if end > first]
        lost += len(places) - len(shown)
        if not shown:
            continue
        stretches = tuple((places[k][0], places[k][1]) for k in shown)
        times = tuple(
            (one.start + first * one.tr, one.start + end * one.tr) for first, end in stretches
        )
        of_recordings.append(StateRecording(one.recording, stretches, times))
        rows += [_row(one, one.blocks[k], places[k]) for k in shown]
    if lost:
        notes.append(f"{lost} blocks lie outside of the recorded volumes and are left out")
    groups, unit = _groups(rows)
    chosen = states.choose_states([row["truth"] for row in rows], groups)
    taken = chosen.rows.tolist()
    return StatesPlan(
        column=column,
        recordings=tuple(of_recordings),
        rows=tuple(taken),
        blocks=tuple(rows[k] for k in taken),
        values=tuple(chosen.values.tolist()),
        classes=chosen.names,
        groups=tuple(groups[k] for k in taken),
        sources=tuple(one.name for one in sources.STATE_SOURCES if one.kind in settings.readouts),
        sidecar={
            "Column": column,
            "HaemodynamicDelay": None if column == TASK else settings.state_delay,
            "LargestGap": None if column == TASK else states.LARGEST_GAP,
            "LeftOutTogether": unit,
            "PermutationP": "states are shuffled within recordings, predictions kept"
            if column != TASK
            else "tasks are shuffled within participants, predictions kept",
            "Notes": [*notes, *chosen.notes],
        },
    )


def _found(
    cohort: Cohort, column: str, recordings: Sequence[Recording], notes: list[str]
) -> list[_Found]:
    """Blocks of the recordings that have events; `notes` tell of the others."""
    found, without = [], []
    for recording in recordings:
        # the series of this call: --model-tr may differ from that of the participant level
        sidecar = files.read_json(recording.naming.path("cohort_robust", extension=".json"))
        start, tr = float(sidecar["StartTime"]), float(sidecar["RepetitionTime"])
        n_volumes = int(sidecar["NumberOfVolumes"])
        if column == TASK:
            task = recording.entities.get("task") or "none"
            blocks = states.whole_recording(task, start=start, tr=tr, n_volumes=n_volumes)
        else:
            path = find_events(recording.stem, cohort.settings.bids_dir)
            if path is None:
                without.append(recording.stem)
                continue
            try:
                blocks = states.find_blocks(read_events(path, column))
            except UserError as error:
                cohort.doubt("events", [str(error)])
                notes.append(str(error))
                continue
        found.append(_Found(recording, blocks, start, tr, n_volumes))
    if without:
        notes.append(
            f"{len(without)} of {len(recordings)} recordings have no events.tsv in "
            f"{cohort.settings.bids_dir} and are left out"
        )
    if not any(one.blocks for one in found):
        raise UserError(notes[0] if notes else "the tables of events name no state")
    return found


def _row(one: _Found, block: Block, place: Sequence[int]) -> dict[str, Any]:
    """What the tables tell of a block."""
    recording = one.recording
    return {
        "participant_id": recording.participant,
        "session_id": recording.session_id,
        "task": recording.entities.get("task"),
        "run": recording.entities.get("run"),
        "recording": recording.stem,
        "onset": block.onset,
        "duration": block.duration,
        "n_volumes": place[1] - place[0],
        "truth": block.state,
    }


def _groups(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], str]:
    """What is left out of the training as a whole, of each block, and its name in the sidecar."""
    for key, unit in (("participant_id", "participants"), ("recording", "recordings")):
        names = [str(row[key]) for row in rows]
        if len(set(names)) > 1:
            return names, unit
    return [str(number) for number in range(len(rows))], "blocks"
