"""Records as inputs of nodes: they come back as they were, and decide whether a node runs again."""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest
from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, traits
from nipype.pipeline import engine
from traits.api import TraitError

from brainlm_bids.bids.context import (
    AnatomicalContext,
    AtlasInfo,
    InputInfo,
    ModelInfo,
    RecordedSettings,
    RecordingContext,
    RunContext,
    TemplateInfo,
    from_plain,
    to_plain,
)
from brainlm_bids.bids.distortion import DistortionInfo
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.interfaces import payloads
from brainlm_bids.interfaces.array_interface import ArrayInputSpec
from brainlm_bids.interfaces.context import Record
from brainlm_bids.interfaces.derivatives import run as of_run
from brainlm_bids.notices import Kind, notice
from brainlm_bids.preproc.steps import Motion

DEMO = notice(Kind.DEMO_MODEL, "A demo.")
NAMING = Naming("/out", "sub-01_task-rest", "MNI152NLin6Asym", "A424")
CONTEXT = RunContext(
    naming=NAMING,
    atlas=AtlasInfo("A424", "MNI152NLin6Asym", "00ff", "a file", False),
    template=TemplateInfo("MNI152NLin6Asym", "TemplateFlow", "ff00"),
    warnings=(notice(Kind.APPROXIMATE_ATLAS, "The atlas is approximate."),),
    models={
        "random": ModelInfo("random", "random:tiny", None, "seeded", "Apache-2.0"),
        "demo": ModelInfo("demo", "demo", "0f0f", "packaged", "Apache-2.0", (DEMO,)),
    },
    tr=0.735,
    task="rest",
    sources=("bids:raw:sub-01/func/sub-01_task-rest_bold.nii.gz",),
    registration="BOLD reference to T1w",
    configuration="0123456789abcdef",
    settings=RecordedSettings("nonaggr", 100.0, None, 0.5, 1.5, 0.5, 42),
    slice_timing_corrected=None,
    start=0.0,
    scaling_statistics="this recording",
    input_data=InputInfo("fMRIPrep", "25.1.0", "T1w"),
    distortion=DistortionInfo("two phases", ("bids:raw:a", "bids:raw:b"), "j-", 0.05),
)


class _Inputs(ArrayInputSpec):
    context = Record(RunContext, mandatory=True)
    namings = traits.List(Record(Naming))


class _Outputs(TraitedSpec):
    written = File()


class Write(SimpleInterface):
    input_spec = _Inputs
    output_spec = _Outputs

    def _run_interface(self, runtime: Any) -> Any:
        path = Path(runtime.cwd) / "written.txt"
        path.write_text(from_plain(RunContext, self.inputs.context).task)
        self._results["written"] = str(path)
        return runtime


@pytest.mark.parametrize(
    "record", [CONTEXT, AnatomicalContext(NAMING, ("a", "b"), TemplateInfo("MNI", "fMRIPrep"))]
)
def test_records_come_back_as_they_were(record: Any) -> None:
    plain = to_plain(record)
    assert from_plain(type(record), pickle.loads(pickle.dumps(plain))) == record


def test_the_model_stage_takes_what_it_needs_of_a_run() -> None:
    found = from_plain(RecordingContext, to_plain(CONTEXT))
    assert type(found) is RecordingContext
    assert (found.naming, found.models) == (CONTEXT.naming, CONTEXT.models)


@pytest.mark.parametrize(
    "info", [CONTEXT.atlas, CONTEXT.template, TemplateInfo("MNI", "fMRIPrep"), AtlasInfo("A424")]
)
def test_sidecars_are_read_back(info: Any) -> None:
    assert type(info).from_sidecar(info.sidecar()) == info
    for unreadable in (None, {}, "A424", {"Space": "MNI"}):
        assert type(info).from_sidecar(unreadable) is None


def test_a_node_holds_plain_values_and_refuses_other_records() -> None:
    interface = Write(context=CONTEXT, namings=[NAMING])
    assert interface.inputs.context == to_plain(CONTEXT)
    assert [from_plain(Naming, one) for one in interface.inputs.namings] == [NAMING]
    for other in (NAMING, "text"):
        with pytest.raises(TraitError):
            Write(context=other)


@pytest.mark.parametrize(
    ("changes", "cached"),
    [
        ({}, True),
        # the same values, made in another order
        ({"models": dict(reversed(CONTEXT.models.items()))}, True),
        ({"task": "nback"}, False),
        ({"warnings": ()}, False),
        ({"tr": 0.7350001}, False),
        ({"naming": dataclasses.replace(NAMING, atlas="A424approx")}, False),
        ({"settings": dataclasses.replace(CONTEXT.settings, high_pass=None)}, False),
    ],
)
def test_a_node_runs_again_only_if_its_context_changed(
    tmp_path: Path, changes: dict[str, Any], cached: bool
) -> None:
    def run(context: RunContext) -> int:
        """When the node wrote its file."""
        workflow = engine.Workflow(name="graph", base_dir=str(tmp_path))
        workflow.add_nodes([engine.Node(Write(context=context), name="write")])
        workflow.run(plugin="Linear")
        return (tmp_path / "graph" / "write" / "written.txt").stat().st_mtime_ns

    assert (run(CONTEXT) == run(dataclasses.replace(CONTEXT, **changes))) is cached


def test_a_refused_single_band_reference_is_no_source_and_is_noted(tmp_path: Path) -> None:
    sources = ("bids:raw:bold.nii.gz", "bids:raw:sbref.nii.gz", "bids:raw:t1w.nii.gz")
    context = dataclasses.replace(CONTEXT, sources=sources, sbref=sources[1])
    taken = Motion(0, reference="sbref", sbref_distance=1.5, sbref_likeness=0.9)
    refused = Motion(0, sbref_refused="is too little like the run (likeness 0.31)")
    for motion, kept in ((taken, sources), (refused, (sources[0], sources[2]))):
        stored = payloads.load(Motion, payloads.save(motion, tmp_path / "motion"))
        assert stored == motion
        assert of_run.used(context, stored).sources == kept
    assert of_run.reference_fields(taken) == {
        "Reference": "sbref",
        "ReferenceDistance": 1.5,
        "ReferenceLikeness": 0.9,
    }
    assert of_run.reference_fields(refused)["Reference"] == "median of volumes"
    assert of_run.reference_warnings("sub-01_task-rest", taken) == []
    (note,) = of_run.reference_warnings("sub-01_task-rest", refused)
    assert (note.kind, note.text) == (
        "sbref_not_used",
        "sub-01_task-rest: its single-band reference is too little like the run (likeness 0.31). "
        "It was not used: the reference is the median of the run's own volumes.",
    )
