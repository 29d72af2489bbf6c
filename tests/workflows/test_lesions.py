"""A lesion mask in the graph: whoever compares images, or writes about them, is given it."""

from pathlib import Path

import numpy as np
from nibabel.nifti1 import Nifti1Image
from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine

from brainlm_bids.bids.context import AnatomicalContext, TemplateInfo
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.anatomical import anatomical_workflow
from brainlm_bids.workflows.functional import connect_lesion
from brainlm_bids.workflows.nodes import Inputs

TARGETS = {"coregister": "t1w_lesion", "project": "lesion", "write": "lesion_found"}


def _edges(workflow: engine.Workflow) -> set[tuple[str, str, str, str]]:
    return {
        (source.name, out, target.name, into)
        for source, target, data in workflow._graph.edges(data=True)
        for out, into in data["connect"]
    }


def test_every_step_that_compares_images_is_given_the_lesion(tmp_path: Path) -> None:
    image = tmp_path / "image.nii"
    Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)).to_filename(image)
    context = AnatomicalContext(
        Naming(str(tmp_path), "sub-01", "MNI", "A424"), ("a",), TemplateInfo("MNI")
    )
    inputs, settings = Inputs(*[str(image)] * 3), Settings(tmp_path, tmp_path / "out")

    def anatomy(lesions: list[str]) -> engine.Workflow:
        return anatomical_workflow("anat", str(image), lesions, context, inputs, settings)

    plain, sick = anatomy([]), anatomy([str(image)])
    assert _edges(sick) - _edges(plain) == {
        ("prepare", "lesion", "normalise", "lesion"),
        ("prepare", "lesion", "write", "lesion"),
        ("prepare", "lesion_found", "write", "lesion_found"),
    }
    assert sick.get_node("prepare").inputs.lesions == [str(image)]
    functional = engine.Workflow("func")
    functional.add_nodes(
        [engine.Node(IdentityInterface([field]), name) for name, field in TARGETS.items()]
    )
    parent = engine.Workflow("parent")
    connect_lesion(parent, functional, sick)
    assert {(out, into) for _, out, _, into in _edges(parent)} == {
        ("prepare.lesion", "coregister.t1w_lesion"),
        ("prepare.lesion", "project.lesion"),
        ("prepare.lesion_found", "write.lesion_found"),
    }
