"""Parcellations beside A424: found before anything is computed, stored for nodes and outputs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from brainlm_bids import files
from brainlm_bids.bids.context import AtlasInfo, ParcellationInfo, RunContext
from brainlm_bids.bids.dataset import atlas_description, write_atlas_files, write_grayordinate_atlas
from brainlm_bids.bids.fmriprep import CIFTI_SPACE, OTHER_TEMPLATE
from brainlm_bids.bids.runs import Run
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json
from brainlm_bids.interfaces import payloads
from brainlm_bids.notices import Kind, notice
from brainlm_bids.preproc.affine import voxel_sizes
from brainlm_bids.preproc.registration.transforms import ItkTransform, resample_to
from brainlm_bids.resources import (
    GRAYORDINATES,
    MNI_2MM_AFFINE,
    REAL_SPACE,
    Parcellation,
    find_cifti_atlas,
    find_parcellation,
    find_template_transform,
    other_space,
)
from brainlm_bids.resources.images import MNI_2MM_SHAPE
from brainlm_bids.resources.label_images import on_grayordinates
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.plans import RecordingPlan

# Labels on voxels below this size are resampled to 1 mm, others to 2 mm.
FINE_MM = 1.5
# The field of the description of a parcellation by which its labels and names are recognised.
CONTENT = "LabelsSHA256"


def find_parcellations(settings: Settings, space: str) -> tuple[Parcellation, ...]:
    """The parcellations that a call names, each under a label of its own.

    Parameters
    ----------
    settings : Settings
        Of the call.
    space : str
        Of the outputs.

    Raises
    ------
    UserError
        If one cannot be used, two have the same label, or the output folder has another one of that
        label.
    """
    found: dict[str, Parcellation] = {}
    for spec in settings.parcellation:
        try:
            one = _in_template(find_parcellation(spec, offline=settings.offline), settings, space)
        except UserError as error:
            raise UserError(f"--parcellation {error}") from error
        same = found.get(one.label.casefold())
        if same is not None and same.content == one.content and same.label == one.label:
            continue
        if same is not None:
            raise UserError(
                f"--parcellation {spec}: outputs of {same.path.name} would have the same names "
                f"(atlas-{one.label}); give one of them as FILE:LABEL"
            )
        _check_folder(spec, one, settings.output_dir)
        found[one.label.casefold()] = one
    return tuple(found.values())


def _check_folder(spec: str, one: Parcellation, output_dir: Path) -> None:
    path = atlas_description(output_dir, one.label)
    if path.exists() and read_json(path).get(CONTENT) != one.content:
        raise UserError(
            f"--parcellation {spec}: {output_dir} has another parcellation called {one.label}, "
            "with other labels or names; give FILE:LABEL with a new label, or another output folder"
        )


def _in_template(one: Parcellation, settings: Settings, space: str) -> Parcellation:
    """The parcellation in the space of A424, or on the grayordinates of its CIFTI file."""
    if one.space == GRAYORDINATES:
        target = find_cifti_atlas(settings.cifti_atlas, offline=settings.offline)
        return one.on(on_grayordinates(one.path, one.labelled, target))
    if one.space == OTHER_TEMPLATE:
        one = _from_other_template(one, settings.offline)
    elif one.space != REAL_SPACE:
        raise UserError(
            f"{one.path}: is in {one.space}; give labels in {REAL_SPACE} or in {OTHER_TEMPLATE}"
        )
    return replace(one, warnings=(*one.warnings, *other_space(space, one.space)))


def _from_other_template(one: Parcellation, offline: bool) -> Parcellation:
    """Labels of the other MNI template on a grid of ours: those of the nearest voxels."""
    try:
        path = find_template_transform(OTHER_TEMPLATE, offline=offline)
    except UserError as error:
        raise UserError(
            f"{one.path}: labels in {OTHER_TEMPLATE} need TemplateFlow's transform to {REAL_SPACE} "
            f"({error})"
        ) from error
    labelled = one.labelled
    assert labelled.affine is not None
    step = 1 if voxel_sizes(labelled.affine).min() < FINE_MM else 2
    shape, affine = _mni_grid(step)
    pull = ItkTransform.from_file(path)
    moved = resample_to(labelled.labels, labelled.affine, shape, affine, pull, 0)
    text = (
        f"The labels of {one.path.name} were brought from {OTHER_TEMPLATE} to {REAL_SPACE} by "
        f"TemplateFlow's transform, on a grid of {step} mm."
    )
    own = replace(labelled, labels=np.rint(moved).astype(np.int32), affine=affine)
    return replace(one.on(own), space=REAL_SPACE).warned(notice(Kind.PARCELLATION, text))


def _mni_grid(step: int) -> tuple[tuple[int, ...], np.ndarray]:
    """The grid of FSL's MNI152 template of 1 or 2 mm."""
    if step == 2:
        return MNI_2MM_SHAPE, MNI_2MM_AFFINE
    affine = MNI_2MM_AFFINE.copy()
    affine[:3, :3] /= 2
    return tuple(2 * n for n in MNI_2MM_SHAPE), affine


# --- runs ------------------------------------------------------------------------------------


def unfit_parcellation(run: Run, parcellations: Sequence[Parcellation]) -> str | None:
    """Why the series of a parcellation cannot be made of a run; None if all can be."""
    source = run.preprocessed
    surface = source is not None and source.space == CIFTI_SPACE
    for one in parcellations:
        if surface and one.space != GRAYORDINATES:
            return (
                f"{run.source.name}: grayordinates cannot be labelled by the volume "
                f"{one.path.name}; give --parcellation with its .dlabel.nii, or --input-space "
                f"{REAL_SPACE}"
            )
        if not surface and one.space == GRAYORDINATES:
            return (
                f"{run.source.name}: voxels cannot be labelled by {one.path.name}; give "
                f"--parcellation with a volume in {REAL_SPACE}"
            )
    return None


def with_parcellations(
    context: RunContext,
    stages: RecordingPlan,
    settings: Settings,
    parcellations: Sequence[Parcellation],
) -> RunContext:
    """The context of a run with what is to be written of it: A424, and which parcellations."""
    infos = tuple(
        ParcellationInfo(
            AtlasInfo(one.label, one.space, one.sha256, one.source, approximate=False),
            str(_stored(settings, one)),
            plan.configuration,
            one.warnings,
        )
        for one, plan in zip(parcellations, stages.parcellations, strict=True)
        if not plan.complete
    )
    return replace(context, parcellations=infos, with_a424=not stages.series.complete)


# --- files -----------------------------------------------------------------------------------


def _stored(settings: Settings, one: Parcellation) -> Path:
    """Where the labels are for the nodes."""
    name = f"parcellation-{one.label}_{one.content[:12]}.npz"
    return settings.work_dir / "resources" / name


def store_parcellations(settings: Settings, parcellations: Sequence[Parcellation]) -> None:
    """Labels and names for the nodes, in the work folder."""
    for one in parcellations:
        path = _stored(settings, one)
        if not path.exists():
            with files.atomically(path) as temporary:
                payloads.save(one.labelled, temporary)


def write_parcellation(output_dir: Path, one: Parcellation) -> None:
    """The parcellation as it was used, in the output folder, with the values of its file."""
    import nibabel as nb

    labelled = one.labelled
    description = {
        "Name": one.label,
        "License": one.licence,
        "Source": one.source,
        "SHA256": one.sha256,
        CONTENT: one.content,
    }
    table = {"index": labelled.index.tolist(), "name": labelled.names.tolist()}
    if labelled.affine is None:
        write_grayordinate_atlas(output_dir, one.label, one.path, table, description)
        return
    values = np.concatenate([[0], labelled.index])[labelled.labels]
    kind = np.int16 if values.max() < 2**15 else np.int32
    write_atlas_files(
        output_dir,
        space=one.space,
        label=one.label,
        image=nb.Nifti1Image(values.astype(kind), labelled.affine),
        table=table,
        description=description,
    )
