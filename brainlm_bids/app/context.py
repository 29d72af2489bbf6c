"""Contexts of the recordings of a call, for the nodes that write derivatives."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from brainlm_bids.app.resources import Resources
from brainlm_bids.bids.context import (
    RAW,
    SERIES,
    AnatomicalContext,
    AtlasInfo,
    InputInfo,
    ModelInfo,
    RecordedSettings,
    RecordingContext,
    RunContext,
    TemplateInfo,
)
from brainlm_bids.bids.distortion import BY_FMRIPREP, BY_T1W, METHODS, DistortionInfo
from brainlm_bids.bids.names import parse
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.bids.preprocessed import producer_version
from brainlm_bids.bids.readout import phase_encoding_axis, phase_encoding_direction
from brainlm_bids.bids.recordings import Recording
from brainlm_bids.bids.runs import Run, bids_uri
from brainlm_bids.bids.slices import start_of_volumes
from brainlm_bids.bids.xcp_d import filters_of, regressed
from brainlm_bids.errors import UserError
from brainlm_bids.notices import Kind, from_json, notice
from brainlm_bids.parcels.sampling import band_warnings
from brainlm_bids.resources import ModelResource
from brainlm_bids.settings import Settings


def run_context(
    settings: Settings, run: Run, resources: Resources, configuration: str
) -> RunContext:
    """Context of a run for the writers; configuration: hash of all that its series depend on."""
    warnings = [*resources.warnings, *run.warnings]
    if run.is_raw and run.t1w is None and all(one.kind != Kind.NO_T1W for one in warnings):
        text = (
            "No T1w image: the BOLD reference was registered to the template directly, which is "
            "less accurate. Check the alignment before using the parcel series."
        )
        warnings.append(notice(Kind.NO_T1W, text))
    if run.no_fieldmap and all(one.kind != Kind.FIELDMAP_NOT_USED for one in warnings):
        warnings.append(notice(Kind.NO_FIELDMAP, f"No field map: {run.no_fieldmap}."))
    if settings.me_denoise == "tedana" and not run.for_tedana:
        text = (
            f"The run was not denoised by tedana, which needs three echoes or more: there are "
            f"{len(run.echoes)}."
            if run.echoes
            else "The run was not denoised by tedana, which needs three echoes or more."
        )
        warnings.append(notice(Kind.TEDANA_NOT_USED, text))
    distortion = distortion_info(run, settings.use_syn_sdc)
    if run.is_raw and run.fieldmap is None and settings.use_syn_sdc and not distortion.estimated:
        text = f"The distortion was not estimated: {no_estimate(run)}."
        warnings.append(notice(Kind.DISTORTION_NOT_ESTIMATED, text))
    recorded = _recorded_settings(settings, run)
    warnings += band_warnings(run.tr, recorded.low_pass)
    atlas, statistics = resources.atlas, settings.scaling_stats
    return RunContext(
        naming=Naming(str(settings.output_dir), run.stem, resources.space, atlas.label),
        atlas=AtlasInfo(atlas.label, atlas.space, atlas.sha256, atlas.source, atlas.approximate),
        template=_template(run, resources),
        warnings=tuple(warnings),
        models={label: model_info(label, model) for label, model in resources.models.items()},
        tr=run.tr,
        task=run.metadata.get("TaskName", run.entities.get("task", "")),
        sources=_sources(run),
        registration=_registration(run),
        configuration=configuration,
        settings=recorded,
        slice_timing_corrected=_slice_timing_corrected(run),
        start=start_of(run),
        scaling_statistics="this recording" if statistics is None else statistics.name,
        input_data=_input_data(settings, run),
        distortion=distortion,
        echo_times=run.echo_times,
        sbref=None if run.sbref is None else run.uri_of(run.sbref),
    )


def anatomical_context(
    settings: Settings, t1w: Path, lesions: Sequence[Path], context: RunContext
) -> AnatomicalContext:
    """Context of a T1w image and its lesion masks, from the context of one of its runs."""
    naming = replace(context.naming, stem=parse(t1w.name).stem)
    assert context.template is not None
    sources = tuple(bids_uri(path, settings.bids_dir) for path in (t1w, *lesions))
    return AnatomicalContext(naming, sources, context.template, settings.normalization)


def cohort_context(recording: Recording, models: Mapping[str, ModelResource]) -> RecordingContext:
    """Context of a recording of the cohort for the models, by their labels."""
    sidecar = recording.sidecar
    return RecordingContext(
        naming=replace(recording.naming, scaling="cohort"),
        atlas=AtlasInfo.from_sidecar(sidecar.get("Atlas")),
        template=TemplateInfo.from_sidecar(sidecar.get("Template")),
        warnings=tuple(from_json(sidecar.get("Warnings"))),
        models={label: model_info(label, model) for label, model in models.items()},
    )


def model_info(label: str, model: ModelResource) -> ModelInfo:
    """A model as sidecars describe it."""
    return ModelInfo(label, model.name, model.sha256, model.source, model.licence, model.warnings)


def _template(run: Run, resources: Resources) -> TemplateInfo:
    if run.is_raw:
        template = resources.template
        return TemplateInfo(resources.space, template.source, template.sha256)
    source = run.preprocessed
    maker = "as given by the user" if source is None else source.producer.title
    return TemplateInfo(resources.space, maker)


def _sources(run: Run) -> tuple[str, ...]:
    """BIDS URIs of the files from which the series of a run are made."""
    return tuple(run.uri_of(path) for path in run.reads)


def _slice_timing_corrected(run: Run) -> bool | None:
    """Whether the slices of a run are brought to one point in time; None if it is not known."""
    if run.is_raw:
        return run.slices is not None
    corrected = run.metadata.get("SliceTimingCorrected")
    return corrected if isinstance(corrected, bool) else None


def start_of(run: Run) -> float:
    """Time that the first volume of a run stands for, in s after the scan began."""
    if run.timeseries:
        return float(run.metadata["StartTime"])
    if run.is_raw:
        return 0.0 if run.slices is None else run.slices.reference
    dropped = 0 if run.preprocessed is None else run.preprocessed.dropped or 0
    return start_of_volumes(run.metadata) + dropped * run.tr


def distortion_info(run: Run, use_syn_sdc: str | None = None) -> DistortionInfo:
    """What is to be done about the distortion of a run.

    Parameters
    ----------
    run : Run
        Of any kind.
    use_syn_sdc : str or None
        What to do about raw runs without a field map: nothing; or estimate it, and if that is
        impossible "warn" or "error".

    Raises
    ------
    UserError
        If it is impossible, and that is an error.
    """
    if run.timeseries:
        return DistortionInfo(reason="a parcel series that was given")
    if run.preprocessed is not None:
        return _of_derivatives(run)
    direction, readout = run.phase_encoding or (run.metadata.get("PhaseEncodingDirection"), None)
    known = DistortionInfo(direction=direction, readout=readout)
    if run.fieldmap is not None:
        return replace(known, method=METHODS[run.fieldmap.kind], fieldmap=run.fieldmap.uris)
    if use_syn_sdc is None:
        return known.refused(run.no_fieldmap)
    obstacle = no_estimate(run)
    if not obstacle:
        return replace(known, method=BY_T1W)
    if use_syn_sdc == "error":
        raise UserError(
            f"{run.source.name}: --use-syn-sdc: {obstacle}; add it, or process such runs without "
            "correction (--use-syn-sdc warn)"
        )
    return known.refused("; ".join(filter(None, (run.no_fieldmap, obstacle))))


def no_estimate(run: Run) -> str:
    """Why the distortion of a raw run cannot be estimated without a field map, in one line."""
    if run.t1w is None:
        return "there is no T1w image that can be used"
    if phase_encoding_axis(run.metadata) is None:
        return phase_encoding_direction(run.metadata)[1]
    return ""


def _of_derivatives(run: Run) -> DistortionInfo:
    """What fMRIPrep's files tell: a transform to a field map, or one among the sources."""
    assert run.preprocessed is not None
    for path in sorted(run.source.parent.glob(f"{run.stem}_from-boldref_to-*_xfm.*")):
        target = parse(path.name).get("to")
        if target not in ("T1w", "T2w", "anat") and path.suffix != ".json":
            return DistortionInfo(BY_FMRIPREP, (run.uri_of(path),))
    sources = run.metadata.get("Sources")
    listed = [one for one in sources if isinstance(one, str)] if isinstance(sources, list) else []
    used = tuple(one for one in listed if "_fmapid-" in one or "/fmap/" in one)
    if used:
        return DistortionInfo(BY_FMRIPREP, used)
    return DistortionInfo(
        reason=f"{run.preprocessed.producer.title}'s files beside the run do not tell it"
    )


def _input_data(settings: Settings, run: Run) -> InputInfo:
    if run.timeseries:
        return InputInfo(SERIES)
    source, folder = run.preprocessed, settings.derivatives_dir
    if source is None or folder is None:
        return InputInfo(RAW)
    producer = source.producer
    info = InputInfo(producer.title, producer_version(folder, producer), source.space)
    if not producer.denoised:
        return info
    level = None if source.level is None else run.uri_of(source.level)
    return replace(info, level=level, dropped=source.dropped)


def _registration(run: Run) -> str:
    """How a run was brought into template space."""
    if run.timeseries:
        return "none: a parcel series that was given"
    if run.preprocessed is not None:
        producer, space = run.preprocessed.producer, run.preprocessed.space
        maker = f"before {producer.title}" if producer.denoised else f"by {producer.title}"
        return f"{maker}, BOLD in {space} space"
    if run.t1w is not None:
        return "BOLD reference to T1w (rigid), T1w to template (affine and diffeomorphic)"
    return "BOLD reference to template (affine and non-linear), no T1w"


def _recorded_settings(settings: Settings, run: Run) -> RecordedSettings:
    """The settings as sidecars report them: a given series is not preprocessed."""
    recorded = RecordedSettings(
        denoise=settings.denoise,
        high_pass=settings.high_pass,
        low_pass=settings.low_pass,
        fd_spike_threshold=settings.fd_spike_threshold,
        dvars_spike_threshold=settings.dvars_spike_threshold,
        min_parcel_coverage=settings.min_parcel_coverage,
        random_seed=settings.random_seed,
        dummy_scans=settings.dummy_scans,
        normalization=settings.normalization if run.is_raw and run.t1w is not None else None,
    )
    if run.preprocessed is not None and run.preprocessed.producer.denoised:
        design = run.preprocessed.design
        high_pass, low_pass = (hz and 1 / hz for hz in filters_of(run.metadata))
        return replace(
            recorded,
            denoise=f"by {run.preprocessed.producer.title}",
            high_pass=high_pass,
            low_pass=low_pass,
            regressed=None if design is None else regressed(design),
        )
    if run.timeseries:
        given = "none, as given"
        return replace(
            recorded, denoise=given, high_pass=None, low_pass=None, min_parcel_coverage=None
        )
    return recorded
