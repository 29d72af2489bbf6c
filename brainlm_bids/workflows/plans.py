"""What is to be computed for a recording: its stages, and which of them are complete already."""

from dataclasses import dataclass

from brainlm_bids.bids.context import AnatomicalContext, RecordingContext, RunContext
from brainlm_bids.bids.runs import Run
from brainlm_bids.workflows.graph import Stage

# The stage of a T1w image, which has no record; all others: see `bids.outputs`.
ANATOMY = "anatomy"


@dataclass(frozen=True)
class StagePlan:
    """A stage, the hash of everything that it depends on, and whether it is complete."""

    stage: Stage
    configuration: str
    complete: bool


@dataclass(frozen=True)
class ModelPlan(StagePlan):
    """The stage of one model.

    Parameters
    ----------
    label : str
        Of the model, in the names of its outputs.
    source : str
        Folder of the checkpoint, or random:<architecture>.
    """

    label: str
    source: str


@dataclass(frozen=True)
class RecordingPlan:
    """The stages of a recording: its series first, then the models that are run on it.

    A model's stage is complete only if its series are. The series of parcellations beside A424 are
    stages of their own: one that is added to a finished recording leaves the others as they are.

    remarks: why the results of a complete recording must not be interpreted.
    """

    series: StagePlan
    models: tuple[ModelPlan, ...] = ()
    parcellations: tuple[StagePlan, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def recording(self) -> str:
        """Name of the recording."""
        return self.series.stage.recording

    @property
    def to_extract(self) -> tuple[StagePlan, ...]:
        """The stages of series that are to be computed from the images."""
        stages = (self.series, *self.parcellations)
        return tuple(plan for plan in stages if not plan.complete)

    @property
    def pending(self) -> tuple[StagePlan, ...]:
        """The stages that are to be computed."""
        stages = (self.series, *self.parcellations, *self.models)
        return tuple(plan for plan in stages if not plan.complete)


@dataclass(frozen=True)
class RunPlan:
    """The plan of a raw, preprocessed or given run.

    Parameters
    ----------
    run : Run
        Where it is read from.
    stages : RecordingPlan
        What is to be computed.
    context : RunContext
        What its writers know of it.
    anatomy : AnatomicalContext or None
        The same of its T1w image, if it has one.
    distortion : str
        What was done about its distortion if its series are complete, else what is to be done.
    """

    run: Run
    stages: RecordingPlan
    context: RunContext
    anatomy: AnatomicalContext | None
    distortion: str


@dataclass(frozen=True)
class CohortPlan:
    """The plan of a recording that is scaled with the cohort's statistics."""

    stages: RecordingPlan
    context: RecordingContext
