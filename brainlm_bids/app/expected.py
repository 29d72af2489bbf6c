"""The time and the space that runs are expected to need, before anything is computed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from brainlm_bids.app.sizes import RunSize, size_of
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.costs import USUAL, expected_seconds
from brainlm_bids.workflows.plans import RunPlan

# Megabytes of outputs: of a run, of its T1w image, of a model; with --save-bold, of a million
# values of the denoised volumes, which have these voxels of 2 mm (docs/scaling.md).
OF_RUN, OF_T1W, OF_MODEL, OF_PARCELLATION = 12.0, 7.0, 3.0, 6.0
OF_VOLUMES, VOXELS = 1.15, 0.903
# Megabytes in the work folder until a run is finished: of any, and of a million values of it.
WORK, WORK_OF_MILLION = 40.0, 2.2
START = 20.0  # seconds until the first step runs, and for the reports

_AFTER = ("denoise", "scale", "write", "draw")
_OF_VOLUMES = ("project", "extract", "decompose", "classify", *_AFTER)


@dataclass(frozen=True)
class Expected:
    """What is expected of some runs.

    Parameters
    ----------
    seconds : float
        On one core.
    output_mb, work_mb : float
        Megabytes of outputs, and in the work folder.
    """

    seconds: float = 0.0
    output_mb: float = 0.0
    work_mb: float = 0.0

    @classmethod
    def sum(cls, parts: Iterable[Self]) -> "Expected":
        """The sum of several."""
        own = list(parts)
        return cls(
            sum(one.seconds for one in own),
            sum(one.output_mb for one in own),
            sum(one.work_mb for one in own),
        )

    def wall(self, n_processes: int, n_runs: int) -> float:
        """Seconds of a call with some processes; those of one run follow one another."""
        return START + self.seconds / max(1, min(n_processes, n_runs))


def expect_runs(plans: Sequence[RunPlan], settings: Settings) -> dict[str, Expected]:
    """What each run is expected to need, by its name; a T1w image counts with its first run."""
    found, images = {}, set()
    for plan in plans:
        own = plan.anatomy is not None and plan.run.t1w not in images
        if own and plan.stages.to_extract:
            images.add(plan.run.t1w)
        found[plan.run.stem] = expect_run(plan, settings, size_of(plan.run), with_t1w=own)
    return found


def expect_run(
    plan: RunPlan, settings: Settings, size: RunSize | None, *, with_t1w: bool
) -> Expected:
    """What one run is expected to need.

    Parameters
    ----------
    plan : RunPlan
        Of the run.
    settings : Settings
        Of the call.
    size : RunSize or None
        Of the run; None: not known.
    with_t1w : bool
        Whether its T1w image is still to be processed.
    """
    cost = USUAL if size is None else size.cost
    labels = [model.label for model in plan.stages.models if not model.complete]
    seconds = sum(expected_seconds("model", cost, label) for label in labels)
    output, work = OF_MODEL * len(labels), 0.0
    if plan.stages.to_extract:
        nodes = series_nodes(plan, settings)
        seconds += sum(expected_seconds(node, cost) for node in nodes)
        made = 0.0 if plan.stages.series.complete else OF_RUN
        made += OF_PARCELLATION * sum(not one.complete for one in plan.stages.parcellations)
        output, work = output + made, WORK + WORK_OF_MILLION * cost.millions
        if with_t1w:
            seconds += sum(expected_seconds(node) for node in ("prepare", "normalise", "write"))
            output += OF_T1W
        if settings.save_bold and size is not None and not plan.stages.series.complete:
            output += OF_VOLUMES * VOXELS * size.n_volumes
    return Expected(seconds, output, work)


def series_nodes(plan: RunPlan, settings: Settings) -> list[str]:
    """Names of the nodes that make the series of a run."""
    run = plan.run
    strategy = ["strategy"] if run.preprocessed is not None and settings.strategy else []
    saved = ["save_bold"] if settings.save_bold and run.has_volumes else []
    if run.timeseries:
        return ["take", "scale", "write", "draw"]
    if run.preprocessed is not None and run.preprocessed.producer.denoised:
        parts = ["project", "extract"] if run.has_volumes else []
        return ["take", *parts, "scale", "write", "draw"]
    if not run.has_volumes:
        return ["take", *strategy, *_AFTER]
    if run.preprocessed is not None:
        return ["take", *strategy, *_OF_VOLUMES, *saved]
    distortion = ["undistort"] if run.fieldmap is not None else []
    distortion += ["unwarp"] if plan.context.distortion.estimated else []
    located = "normalise" if run.t1w is None else "coregister"
    return ["realign", *distortion, located, *_OF_VOLUMES, *saved]


def too_full(
    needed: Mapping[str, tuple[float, float | None]],
) -> list[str]:
    """Which folders have less space than is needed, in words.

    Parameters
    ----------
    needed : mapping of str to tuple
        Name of a folder to the megabytes that are needed and that are free (None: not known).

    Examples
    --------
    >>> too_full({"OUTPUT_DIR /out": (2000.0, 500.0), "--work-dir /work": (10.0, 500.0)})
    ['OUTPUT_DIR /out: about 2.0 GB are needed, and 0.5 GB are free']
    """
    return [
        f"{name}: about {mb / 1000:.1f} GB are needed, and {free / 1000:.1f} GB are free"
        for name, (mb, free) in needed.items()
        if free is not None and mb > free
    ]
