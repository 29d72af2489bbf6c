"""Parcellations in the graph: what is placed and written, and stages of their own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import ants
import nibabel as nb
import numpy as np
import pytest

from brainlm_bids.app.expected import expect_run
from brainlm_bids.app.parcellations import find_parcellations
from brainlm_bids.app.planning import make_plan
from brainlm_bids.app.resources import find_resources, materialise, with_space_resources
from brainlm_bids.bids import inputs
from brainlm_bids.bids.context import RunContext, from_plain
from brainlm_bids.bids.fmriprep import FMRIPREP
from brainlm_bids.bids.outputs import write_record
from brainlm_bids.bids.preprocessed import Preprocessed
from brainlm_bids.errors import UserError
from brainlm_bids.interfaces import payloads
from brainlm_bids.preproc.registration.transforms import ItkTransform
from brainlm_bids.resources import Labelled
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.graph import Stage
from brainlm_bids.workflows.participant import participant_workflow

SPACE = "MNI152NLin6Asym"
STEM = "sub-01_task-rest"


def _labels(path: Path, shift: int = 0) -> Path:
    data = np.zeros((20, 20, 20), np.int16)
    data[8 + shift : 12 + shift, 8:12, 8:12] = 5
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -20
    nb.Nifti1Image(data, affine).to_filename(path)
    return path


def _settings(root: Path, *parcellation: str) -> Settings:
    func = root / "bids" / "sub-01" / "func"
    func.mkdir(parents=True, exist_ok=True)
    (root / "bids" / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    (func / f"{STEM}_bold.json").write_text('{"RepetitionTime": 2.0, "TaskName": "rest"}')
    image = nb.Nifti1Image(np.zeros((9, 9, 9, 30), np.uint8), np.diag([9.0] * 3 + [1]))
    image.to_filename(func / f"{STEM}_bold.nii.gz")
    values: dict[str, Any] = {"model": ("random:tiny",), "offline": True, "atlas": "A424approx"}
    values |= {"template": "MNI152NLin2009aSym", "parcellation": parcellation, "save_bold": True}
    return Settings(root / "bids", root / "out", root / "work", **values)


def _plan(settings: Settings) -> Any:
    (run,) = inputs.find_runs(settings)
    return make_plan(settings, run, find_resources(settings))


def _complete(settings: Settings, plan: Any) -> None:
    for stage in plan.stages.pending:
        write_record(settings.output_dir, *stage.stage, stage.configuration, [])


def test_a_parcellation_that_is_added_leaves_what_is_finished(tmp_path: Path) -> None:
    one, two = (str(_labels(tmp_path / f"{name}.nii.gz")) for name in ("one", "two"))
    plain = _settings(tmp_path)
    first = _plan(plain)
    assert [one.stage.name for one in first.stages.pending] == ["series", "model-randomtiny"]
    _complete(plain, first)
    settings = _settings(tmp_path, one, two)
    plan = _plan(settings)
    assert plan.stages.series.configuration == first.stages.series.configuration
    assert [stage.stage.name for stage in plan.stages.pending] == ["atlas-one", "atlas-two"]
    assert not plan.context.with_a424 and len(plan.context.parcellations) == 2
    expected = expect_run(plan, settings, None, with_t1w=False)
    assert expected.seconds > 10 and expected.output_mb == 12.0
    graph = participant_workflow([plan], materialise(settings, find_resources(settings)), settings)
    names = {name.rpartition(".")[2] for name in graph.nodes[Stage(STEM, "atlas-one")]}
    assert {"realign", "project", "extract", "denoise", "write"} <= names
    assert "save_bold" not in names and len(graph.nodes) == 2
    assert graph.names_upstream([Stage(STEM, "atlas-two")]) == set(
        graph.nodes[Stage(STEM, "atlas-one")]
    )
    functional = graph.workflow.get_node(f"func_{STEM.replace('-', '_')}")
    project, write = functional.get_node("project"), functional.get_node("write")
    context = from_plain(RunContext, write.inputs.context)
    assert [info.atlas.name for info in context.parcellations] == ["one", "two"]
    stored = [payloads.load(Labelled, path) for path in project.inputs.parcellations]
    assert [labelled.index.tolist() for labelled in stored] == [[5], [5]]
    edges = functional._graph
    extract, denoise = functional.get_node("extract"), functional.get_node("denoise")
    assert ("others_operator", "others_operator") in edges[project][extract]["connect"]
    assert ("others", "others") in edges[extract][denoise]["connect"]
    assert ("others_denoised", "others_denoised") in edges[denoise][write]["connect"]
    _complete(settings, plan)
    assert _plan(settings).stages.pending == ()


def test_other_names_are_another_configuration_and_other_settings_too(tmp_path: Path) -> None:
    path = _labels(tmp_path / "one.nii.gz")
    settings = _settings(tmp_path, str(path))
    before = _plan(settings).stages
    path.with_name("one.tsv").write_text("index\tname\n5\tfive\n")
    after = _plan(settings).stages
    assert after.series == before.series
    assert after.parcellations[0].configuration != before.parcellations[0].configuration
    other = _plan(replace(settings, high_pass=128.0)).stages
    assert other.parcellations[0].configuration != after.parcellations[0].configuration


def test_labels_of_the_other_template_go_through_templateflows_transform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its world is that of ours moved by 6 mm: the labels come back by as much."""
    home = tmp_path / "templateflow"
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(home))
    path = _labels(tmp_path / "tpl-MNI152NLin2009cAsym_atlas-Other_dseg.nii.gz", shift=3)
    settings = _settings(tmp_path, str(path))
    with pytest.raises(UserError, match="need TemplateFlow's transform"):
        find_parcellations(settings, SPACE)
    (home / f"tpl-{SPACE}").mkdir(parents=True)
    shift = np.eye(4)
    shift[0, 3] = 6.0  # from a point of ours to one of theirs
    text = tmp_path / "affine.txt"
    text.write_bytes(ItkTransform.from_matrix(shift).content)
    name = f"tpl-{SPACE}_from-MNI152NLin2009cAsym_mode-image_xfm.h5"
    ants.write_transform(ants.read_transform(str(text)), str(home / f"tpl-{SPACE}" / name))
    (found,) = find_parcellations(settings, SPACE)
    labelled = found.labelled
    assert found.space == SPACE and labelled.affine is not None
    assert "were brought from MNI152NLin2009cAsym" in found.warnings[-1].text
    here = np.argwhere(labelled.labels > 0) @ labelled.affine[:3, :3].T + labelled.affine[:3, 3]
    there = np.argwhere(_array(_labels(tmp_path / "unmoved.nii.gz"))) * 2.0 - 20
    assert np.allclose(here.mean(axis=0), there.mean(axis=0), atol=1.0)
    assert len(here) == len(there)


def _array(path: Path) -> Any:
    return np.asarray(nb.load(path).dataobj)


def test_what_cannot_be_labelled_fails_alone(tmp_path: Path) -> None:
    settings = _settings(tmp_path, str(_labels(tmp_path / "one.nii.gz")))
    (run,) = inputs.find_runs(settings)
    resources = find_resources(settings)
    assert with_space_resources(run, settings, resources).problem is None
    surface = Preprocessed(FMRIPREP, STEM, run.source, "fsLR", run.source)
    problem = with_space_resources(replace(run, preprocessed=surface), settings, resources).problem
    assert problem is not None and "give --parcellation with its .dlabel.nii" in problem
    with pytest.raises(UserError, match="is in MNIPediatricAsym"):
        odd = _labels(tmp_path / "tpl-MNIPediatricAsym_atlas-Odd_dseg.nii.gz")
        find_parcellations(_settings(tmp_path, str(odd)), SPACE)
