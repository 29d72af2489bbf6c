"""The resources of a call: found and checked before anything is computed."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from brainlm_bids import files
from brainlm_bids.app.parcellations import (
    find_parcellations,
    store_parcellations,
    unfit_parcellation,
)
from brainlm_bids.app.plugins import read_plugin_file
from brainlm_bids.bids.preprocessed import CIFTI_SPACE, OTHER_TEMPLATE, Preprocessed
from brainlm_bids.bids.runs import Run
from brainlm_bids.errors import UserError
from brainlm_bids.model.config import read_config
from brainlm_bids.model.devices import choose_device, resolve_precision
from brainlm_bids.notices import Notice
from brainlm_bids.parcels import scaling
from brainlm_bids.resources import (
    REAL_SPACE,
    ModelResource,
    Parcellation,
    find_atlas,
    find_cifti_atlas,
    find_model,
    find_template,
    find_template_transform,
    other_space,
    parcels,
)
from brainlm_bids.resources.atlas import Atlas
from brainlm_bids.resources.template import Template
from brainlm_bids.settings import Settings
from brainlm_bids.workflows.nodes import Inputs


@dataclass(frozen=True)
class Resources:
    """Atlas, template and models of a call.

    Parameters
    ----------
    atlas, template : Atlas, Template
        As found.
    models : mapping of str to ModelResource
        By their labels in the names of outputs.
    space : str
        Space of the outputs: that of the template, or of data that are normalised already.
    warnings : tuple of Notice
        What the reader of every output should know of them.
    parcellations : tuple of Parcellation
        Those beside A424, if runs are processed.
    """

    atlas: Atlas
    template: Template
    models: Mapping[str, ModelResource]
    space: str
    warnings: tuple[Notice, ...]
    parcellations: tuple[Parcellation, ...] = ()


def find_resources(settings: Settings) -> Resources:
    """Find what a call needs, and check the files that its options name.

    Raises
    ------
    UserError
        If a resource is not available, or a file is not what the option needs.
    """
    offline = settings.offline
    # A series that the user declares to be of A424 is not named after the approximate atlas.
    name = settings.atlas or ("A424" if settings.timeseries else None)
    atlas = find_atlas(name, offline=offline)
    template = find_template(settings.template, offline=offline, atlas_space=atlas.space)
    models = _find_models(settings)
    if settings.use_plugin is not None:
        read_plugin_file(settings.use_plugin)
    if settings.scaling_stats is not None:
        scaling.load_stats(settings.scaling_stats, list(parcels().names))
    space, warnings = template.space, template.warnings
    if settings.derivatives or settings.timeseries:
        # The data are already normalised: the template is only the background of figures.
        space = REAL_SPACE
        warnings = other_space(space, atlas.space)
    found: tuple[Parcellation, ...] = ()
    if "participant" in settings.analysis_level:
        found = find_parcellations(settings, space)
    return Resources(atlas, template, models, space, (*atlas.warnings, *warnings), found)


def _find_models(settings: Settings) -> dict[str, ModelResource]:
    models: dict[str, ModelResource] = {}
    for name in settings.model:
        model = find_model(name, offline=settings.offline)
        if model is None:
            continue
        if model.label in models:
            raise UserError(
                f"--model: two models would both be called {model.label!r} in the outputs; "
                "rename one of the folders"
            )
        models[model.label] = model
    check_models(models.values(), settings)
    return models


def check_models(models: Collection[ModelResource], settings: Settings) -> None:
    """Refuse at the start what the models would refuse after an hour of preprocessing."""
    n_parcels = len(parcels().names)
    for model in models:
        if model.path is None:
            continue
        config = read_config(model.path / "config.json")
        if config.n_parcels != n_parcels:
            raise UserError(
                f"{model.path / 'config.json'}: a model of {config.n_parcels} parcels; "
                f"the atlas has {n_parcels}"
            )
        if settings.window_stride is not None and settings.window_stride > config.window:
            raise UserError(
                f"--window-stride {settings.window_stride}: the window of {model.name} has "
                f"{config.window} volumes"
            )
    if models and settings.device == "cuda":
        choose_device("cuda")


def check_weights(models: Collection[ModelResource]) -> None:
    """Load every checkpoint of a call once, before anything is computed that it would end.

    Raises
    ------
    UserError
        If one cannot be loaded; the message names the file.
    """
    paths = [model.path for model in models if model.path is not None]
    if not paths:
        return
    from brainlm_bids.model.checkpoint import check_checkpoint  # imports torch

    for path in paths:
        check_checkpoint(path)


def with_precision(settings: Settings, resources: Resources) -> Settings:
    """The settings with the precision that the models run with, on which their results depend.

    It is decided once, where the call is planned: outputs that were made in bfloat16 on a GPU are
    not complete for a call in float32 on a CPU.
    """
    if not resources.models:
        return settings
    precision = resolve_precision(settings.device, settings.precision)
    return replace(settings, precision=precision)


def with_space_resources(run: Run, settings: Settings, resources: Resources) -> Run:
    """A run of existing derivatives with the transform or atlas that its space needs.

    That is A424 on grayordinates, or TemplateFlow's transform from the other MNI template to ours.
    """
    source = run.preprocessed
    if run.problem or run.skip:
        return run
    unfit = unfit_parcellation(run, resources.parcellations)
    if unfit:
        return replace(run, problem=unfit)
    if source is None:
        return run
    if source.space == CIFTI_SPACE:
        return _with_cifti_atlas(run, source, settings, resources)
    if source.space != OTHER_TEMPLATE:
        return run
    try:
        transform = find_template_transform(OTHER_TEMPLATE, offline=settings.offline)
    except UserError as error:
        problem = (
            f"{source.bold.name}: BOLD in {OTHER_TEMPLATE} needs TemplateFlow's transform to "
            f"{REAL_SPACE} ({error}); or {source.producer.again}"
        )
        return replace(run, problem=problem)
    return replace(run, preprocessed=replace(source, to_template=transform))


def _with_cifti_atlas(
    run: Run, source: Preprocessed, settings: Settings, resources: Resources
) -> Run:
    name = source.bold.name
    if resources.atlas.approximate:
        label = resources.atlas.label
        problem = f"{name}: grayordinates are labelled by A424, not by {label}; give --atlas"
        return replace(run, problem=problem)
    if not source.producer.denoised and settings.strategy is None and settings.denoise != "none":
        problem = (
            f"{name}: ICA-AROMA needs voxels outside of grey matter, which CIFTI lacks; give "
            "--denoise confounds:simple (or none), or another --input-space"
        )
        return replace(run, problem=problem)
    try:
        labels = find_cifti_atlas(settings.cifti_atlas, offline=settings.offline)
    except UserError as error:
        return replace(run, problem=f"{name}: {error}")
    return replace(run, preprocessed=replace(source, labels=labels))


def materialise(settings: Settings, resources: Resources) -> Inputs:
    """Resource files for the nodes; embedded ones are written into the work folder once."""
    import nibabel as nb
    import numpy as np

    def saved(name: str, sha256: str, load: Callable[[], Any], kind: type) -> str:
        path = settings.work_dir / "resources" / f"{name}_{sha256[:12]}.nii.gz"
        if not path.exists():
            data, affine = load()
            with files.atomically(path) as temporary:
                nb.Nifti1Image(np.asarray(data, dtype=kind), affine).to_filename(temporary)
        return str(path)

    store_parcellations(settings, resources.parcellations)
    atlas, template = resources.atlas, resources.template
    stem = f"tpl-{template.space}"
    return Inputs(
        saved(f"atlas-{atlas.label}", atlas.sha256, atlas.load, np.int16),
        saved(f"{stem}_T1w", template.sha256, template.load_t1w, np.float32),
        saved(f"{stem}_mask", template.sha256, template.load_brain_mask, np.uint8),
    )
