"""The participant graph: every run that is not complete, its anatomy, and the models that it needs.

Names in the graph are those of the source files, so that a crash file tells whose it is.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brainlm_bids.bids.inputs import Run
from brainlm_bids.bids.names import parse
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.anatomical import anatomical_workflow
from brainlm_bids.workflows.embedding import model_node
from brainlm_bids.workflows.functional import connect_geometry, functional_workflow
from brainlm_bids.workflows.nodes import Inputs, make_workflow
from brainlm_bids.workflows.series import series_workflow

WORKFLOW = "brainlm_bids"


@dataclass(frozen=True)
class ModelTask:
    """One model to be run: where it comes from, its label, the configuration's hash."""

    source: str
    label: str
    configuration: str


@dataclass(frozen=True)
class Plan:
    """What is to be done for one run."""

    run: Run
    naming: Naming
    configuration: str
    context: dict[str, Any]
    anatomical_context: dict[str, Any] | None
    series: bool  # whether the series must be computed
    models: tuple[ModelTask, ...] = field(default=())

    @property
    def functional_name(self) -> str:
        return node_name("func", self.naming.stem)

    @property
    def anatomical_name(self) -> str | None:
        if self.run.t1w is None:
            return None
        return node_name("anat", parse(self.run.t1w.name).bare)

    def model_name(self, label: str) -> str:
        return node_name(f"model_{label}", self.naming.stem)


def node_name(prefix: str, stem: str) -> str:
    """A name that Nipype accepts.

    >>> node_name("func", "sub-01_task-rest_run-1")
    'func_sub_01_task_rest_run_1'
    """
    return re.sub(r"\W", "_", f"{prefix}_{stem}")


def participant_workflow(plans: Sequence[Plan], inputs: Inputs, settings: Settings) -> Any:
    """The graph of all plans; a T1w image that several runs share is processed once."""
    workflow = make_workflow(WORKFLOW)
    workflow.base_dir = str(settings.work_dir)
    anatomies: dict[str, Any] = {}
    for plan in plans:
        functional = None
        if plan.series:
            anatomical = _anatomy(plan, anatomies, inputs, settings)
            functional = _functional(plan, inputs, settings)
            if anatomical is None:
                workflow.add_nodes([functional])
            if plan.run.is_raw:
                connect_geometry(workflow, functional, anatomical, inputs, settings)
        _add_models(workflow, plan, functional, inputs, settings)
    return workflow


def _functional(plan: Plan, inputs: Inputs, settings: Settings) -> Any:
    name, run = plan.functional_name, plan.run
    if not run.has_volumes:
        return series_workflow(name, run, _gigabytes(run.source), plan.context, settings)
    size = _gigabytes(run.source)
    functional = functional_workflow(name, run, size, plan.context, inputs, settings)
    if not run.is_raw:
        draw = functional.get_node("draw")
        draw.inputs.fixed, draw.inputs.fixed_mask = inputs.template, inputs.template_mask
    return functional


def _anatomy(plan: Plan, anatomies: dict[str, Any], inputs: Inputs, settings: Settings) -> Any:
    name = plan.anatomical_name
    if name is None or plan.anatomical_context is None:
        return None
    if name not in anatomies:
        anatomies[name] = anatomical_workflow(
            name, str(plan.run.t1w), plan.anatomical_context, inputs, settings
        )
    return anatomies[name]


def _add_models(
    workflow: Any, plan: Plan, functional: Any, inputs: Inputs, settings: Settings
) -> None:
    for task in plan.models:
        node = model_node(
            plan.model_name(task.label),
            task.source,
            task.label,
            task.configuration,
            plan.context,
            inputs,
            settings,
        )
        if functional is None:
            node.inputs.robust_tsv = str(plan.naming.path("robust"))
            workflow.add_nodes([node])
            continue
        workflow.connect([(functional, node, [("write.robust_tsv", "robust_tsv")])])


def _gigabytes(bold: Path) -> float:
    """Size of a run as float32, from its header."""
    import math

    import nibabel as nb

    if ".nii" not in bold.name:
        return bold.stat().st_size / 2**30
    return math.prod(nb.load(bold).shape) * 4 / 2**30  # type: ignore[attr-defined]
