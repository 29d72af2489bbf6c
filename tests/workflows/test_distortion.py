"""A field map in the graph: one more node, whose distortion reaches all that looks up points."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pytest
from distorted_head import READOUT, Head, centres, grid, moved

from brainlm_bids.app.planning import make_plan
from brainlm_bids.app.resources import find_resources, materialise
from brainlm_bids.bids import inputs
from brainlm_bids.bids.fieldmaps import Fieldmap
from brainlm_bids.interfaces import images, payloads
from brainlm_bids.interfaces.distortion import Undistort
from brainlm_bids.interfaces.unwarping import UnwarpByBoundary
from brainlm_bids.preproc.distortion.field import Distortion
from brainlm_bids.preproc.distortion.placement import Fit
from brainlm_bids.preproc.registration.brain import brain_mask_epi
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.participant import participant_workflow

HEAD = Head(peak=45.0)
ECHO_TIMES = (0.005, 0.0125)


def _save(path: Path, data: np.ndarray, affine: np.ndarray, **sidecar: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nb.Nifti1Image(data, affine).to_filename(path)
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))
    return path


def _dataset(root: Path, t1w: bool) -> Settings:
    """A run, its phase difference with magnitude, and, if asked for, a T1w image."""
    subject, rng = root / "sub-01", np.random.default_rng(0)
    root.mkdir()
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    affine, shape = grid("LAS", 6.0)
    still = HEAD.epi(affine, shape, "j-")
    run = np.stack([still + rng.normal(0, 9, shape) for _ in range(25)], axis=3)
    _save(
        subject / "func" / "sub-01_task-rest_bold.nii.gz",
        np.rint(np.abs(run)).astype(np.int16),
        affine,
        **{"RepetitionTime": 2.0, "TaskName": "rest"},
        **{"PhaseEncodingDirection": "j-", "TotalReadoutTime": READOUT},
    )
    if t1w:
        _save(subject / "anat" / "sub-01_T1w.nii.gz", still.astype(np.float32), affine)
    own, size = grid("RAS", 5.0)
    magnitude = HEAD.magnitude(own, size)
    radians = 2 * np.pi * HEAD.hertz(centres(own, size)).reshape(size)
    radians = radians * (ECHO_TIMES[1] - ECHO_TIMES[0])
    radians = np.where(magnitude > 0, radians, rng.uniform(-np.pi, np.pi, size))
    stored = np.rint(4095 * (np.angle(np.exp(1j * radians)) / (2 * np.pi) + 0.5))
    elsewhere = moved(own, [3, -2, 4], [4, -3, 5])
    both = dict(zip(("EchoTime1", "EchoTime2"), ECHO_TIMES))
    about = {"IntendedFor": "bids::sub-01/func/sub-01_task-rest_bold.nii.gz"}
    fmap = subject / "fmap"
    _save(fmap / "sub-01_phasediff.nii.gz", stored.astype(np.int16), elsewhere, **both, **about)
    _save(fmap / "sub-01_magnitude1.nii.gz", magnitude.astype(np.int16), elsewhere)
    values: dict[str, Any] = {"model": ("none",), "offline": True, "atlas": "A424approx"}
    values |= {"template": "MNI152NLin2009aSym", "save_bold": True}
    return Settings(root, root.parent / "out", root.parent / "work", **values)


def _functional(settings: Settings) -> Any:
    (run,) = inputs.find_runs(settings)
    resources = find_resources(settings)
    plan = make_plan(settings, run, resources)
    graph = participant_workflow([plan], materialise(settings, resources), settings).workflow
    return graph.get_node("func_sub_01_task_rest")


def _connected(workflow: Any, output: str, node: str = "undistort") -> set[str]:
    """Who gets an output of a node, under the same name."""
    return {
        target.name
        for source, target, data in workflow._graph.edges(data=True)
        if source.name == node and (output, output) in data["connect"]
    }


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return _dataset(tmp_path_factory.mktemp("map") / "bids", t1w=True)


def test_all_that_looks_up_points_gets_the_distortion(settings: Settings, tmp_path: Path) -> None:
    functional = _functional(settings)
    assert len(functional.list_node_names()) <= 12
    located = {"project", "draw", "save_bold", "write"}
    assert _connected(functional, "distortion") == {*located, "coregister"}
    assert _connected(functional, "refused") == _connected(functional, "fit") == {"write"}
    # the series and the masks stay on the grid of the run as it was measured
    assert not _connected(functional, "boldref")
    without = _functional(_dataset(tmp_path / "bids", t1w=False))
    assert _connected(without, "distortion") == located
    edges = without._graph[without.get_node("undistort")][without.get_node("normalise")]["connect"]
    assert set(edges) == {("boldref", "image"), ("brain_mask", "brain_mask")}
    assert "undistort" not in _functional(_ignoring(settings)).list_node_names()


def test_without_a_field_map_the_t1w_image_tells_the_distortion(settings: Settings) -> None:
    functional = _functional(replace(_ignoring(settings), use_syn_sdc="error", save_bold=True))
    names = functional.list_node_names()
    assert "unwarp" in names and "undistort" not in names and len(names) <= 12
    located = {"project", "draw", "save_bold", "write"}
    assert _connected(functional, "distortion", "unwarp") == located
    # the brain is where the run shows it, for all that average over voxels
    masked = {"project", "extract", "decompose", "classify", "draw", "save_bold"}
    assert _connected(functional, "brain_mask", "unwarp") == masked
    assert _connected(functional, "brain_mask", "coregister") == {"unwarp"}
    for output in ("refused", "evidence", "contrasts"):
        assert _connected(functional, output, "unwarp") == {"write"}
    assert functional.get_node("unwarp").inputs.axis == 1
    assert "unwarp" not in _functional(replace(settings, use_syn_sdc="error")).list_node_names()


def test_a_suspect_registration_tells_no_distortion(tmp_path: Path) -> None:
    files = {}
    for name in ("boldref", "brain_mask", "seen", "t1w", "t1w_mask"):
        files[name] = images.save_image(tmp_path / f"{name}.nii.gz", np.ones((4, 4, 4)), np.eye(4))
    for name in ("matrix", "transform"):
        files[name] = payloads.save(np.eye(4), tmp_path / name)
    (tmp_path / "node").mkdir()
    node = UnwarpByBoundary(**files, mask_source="BOLD", axis=1, seed=1)
    outputs = node.run(cwd=str(tmp_path / "node")).outputs
    assert "registration" in outputs.refused
    assert outputs.brain_mask == files["brain_mask"]
    assert not outputs.distortion and not outputs.evidence


def _ignoring(settings: Settings) -> Settings:
    return Settings(
        **{name: getattr(settings, name) for name in ("bids_dir", "output_dir", "work_dir")},
        **{"model": ("none",), "offline": True, "atlas": "A424approx", "ignore": ("fieldmaps",)},
        template="MNI152NLin2009aSym",
    )


def _undistort(settings: Settings, folder: Path, fieldmap: Fieldmap | None = None) -> Any:
    """The node's interface on a run whose reference is the mean."""
    (run,) = inputs.find_runs(settings)
    data, affine = images.load_image(str(run.source))
    reference = data.mean(axis=3)
    folder.mkdir()
    fieldmap = fieldmap or run.fieldmap
    assert fieldmap is not None and run.phase_encoding == ("j-", READOUT)
    node = Undistort(
        boldref=images.save_image(folder / "reference.nii", reference, affine),
        brain_mask=images.save_image(
            folder / "mask.nii", brain_mask_epi(reference, affine), affine
        ),
        fieldmap=fieldmap,
        files=[str(path) for path in fieldmap.files],
        direction="j-",
        readout=READOUT,
        seed=1,
    )
    return node.run(cwd=str(folder)).outputs


def test_the_node_finds_the_displacement(settings: Settings, tmp_path: Path) -> None:
    outputs = _undistort(settings, tmp_path / "node")
    assert outputs.refused == ""
    found = payloads.load(Distortion, outputs.distortion)
    points = centres(*grid("LAS", 6.0))
    inside = HEAD.radius(points) < 0.97
    truth = -HEAD.hertz(points[inside]) * READOUT * 6.0
    assert np.abs(truth).max() > 10
    errors = np.abs(found.millimetres.ravel()[inside] - truth)
    assert errors.mean() < 0.3 and np.percentile(errors, 95) < 1.0
    assert payloads.load(Fit, outputs.fit).largest_mm > 10
    assert found(points[:1]).shape == (1, 3)


def test_a_field_map_that_cannot_be_used_leaves_the_run_as_it_is(
    settings: Settings, tmp_path: Path
) -> None:
    (run,) = inputs.find_runs(settings)
    assert run.fieldmap is not None
    wrong = Fieldmap("phasediff", run.fieldmap.images, run.fieldmap.magnitude, (5.0, 12.5))
    outputs = _undistort(settings, tmp_path / "node", wrong)
    assert "sub-01_phasediff.nii.gz: echo times" in outputs.refused
    assert not outputs.distortion and not outputs.fit
    np.testing.assert_array_equal(
        images.load_image(outputs.boldref)[0],
        images.load_image(str(tmp_path / "node" / "reference.nii"))[0],
    )
