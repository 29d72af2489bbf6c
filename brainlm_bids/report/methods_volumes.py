"""The methods text of what was done with images: anatomy, registration, motion, denoising."""

from __future__ import annotations

from collections.abc import Sequence

from brainlm_bids.bids.context import FMRIPREP, RAW, REGISTRATION_FIELDS, SERIES, XCP_D
from brainlm_bids.notices import Kind
from brainlm_bids.report.clauses import counted, quoted, said, span
from brainlm_bids.report.methods_denoised import censoring, cleaning, left_out, n_censored
from brainlm_bids.report.run_records import RunRecord, mapping
from brainlm_bids.report.values import as_float, joined

# How a brain mask was made, by the word in its sidecar.
_EXTRACTION = {
    "deepbet": "the brain was extracted with the neural network deepbet [@deepbet]",
    "skull-stripped": "the image had no skull, and the brain was taken as it was",
    "threshold": "the brain was found by a threshold, because deepbet [@deepbet] found none",
    "template": "the brain was extracted by registering the template with its mask by ANTs [@ants]",
}
# What registrations are judged by, and the numbers that tell it: where the boundary is judged, the
# masks are, too.
_MEASURES = {
    "contrast and cost at the boundary of the white matter": ("contrast", "cost"),
    "the overlap of brain masks": ("contrast", "overlap", "dice"),
    "the area of the brain at the edges of the T1w image": ("edge",),
    "the correlation of the normalised T1w image with the template": ("correlation",),
}


def anatomy(runs: Sequence[RunRecord]) -> str:
    """Brain extraction, normalisation, and the registration of BOLD runs."""
    raw = [run for run in runs if run.kind == RAW]
    images = {(run.participant, run.t1w): run for run in raw if run.t1w}
    parts = []
    if images:
        ones = list(images.values())
        parts += [
            f"{counted(len(ones), 'T1w image')} "
            f"{'was' if len(ones) == 1 else 'were'} corrected for intensity non-uniformity by N4 "
            "[@n4].",
            said([_extraction(run) for run in ones], "T1w images"),
            said([_normalisation(run) for run in ones], "T1w images"),
            said([_lesion(run) for run in ones], "T1w images"),
        ]
    parts.append(said([_registration(run) for run in runs]))
    parts.append(said([_quality(run) for run in runs]))
    parts.append(said([_brain(run) for run in runs]))
    return " ".join(part for part in parts if part)


def _extraction(run: RunRecord) -> str | None:
    method = run.anatomy.get("BrainExtraction")
    if not method:
        return None
    return _EXTRACTION.get(str(method), f"the brain was extracted by {quoted(method)}")


def _normalisation(run: RunRecord) -> str:
    name = template(run)
    if str(run.anatomy.get("Normalization", "")).lower().startswith("syn"):
        return (
            f"the image was registered to {name} with an affine and a symmetric diffeomorphic "
            "transform (SyN) [@syn] of ANTs [@ants]"
        )
    return (
        f"the image was registered to {name} with an affine transform of ANTs [@ants] and then "
        "with a greedy diffeomorphism [@greedy] whose steps maximise the local correlation by "
        "least squares [@lucaskanade]"
    )


def _lesion(run: RunRecord) -> str | None:
    volume = as_float(run.anatomy.get("LesionVolume"))
    if volume is None:
        return None
    return (
        f"the lesion that a mask marks ({volume:.1f} ml) was left out of the bias field, of the "
        "cost of the registration to the template (cost-function masking [@brett]), which is "
        "interpolated there, and of the boundary of the white matter"
    )


def template(run: RunRecord) -> str:
    """The template of a run, with its reference."""
    name = quoted(mapping(run.series.get("Template")).get("Name") or run.naming.space)
    if name.startswith("MNI152NLin6"):
        return f"{name} [@nlin6]"
    return f"{name} [@nlin2009]" if name.startswith("MNI152NLin2009") else name


def _registration(run: RunRecord) -> str | None:
    if run.kind in (FMRIPREP, XCP_D):
        return _of_derivatives(run)
    if run.kind != RAW:
        return None
    if not run.t1w:
        return (
            f"there was no T1w image, and the BOLD reference was registered to {template(run)} "
            "directly, with an affine transform and a smooth non-linear transform that align it "
            "with the boundary of the template’s white matter [@bbr] or, where this boundary was "
            "not clear, with a symmetric diffeomorphic transform (SyN) [@syn] of ANTs [@ants]"
        )
    purpose = ", corrected for intensity non-uniformity by N4 [@n4] for this purpose,"
    corrected = purpose if run.series.get("BrainMask") else ""
    rigid = (
        f"the BOLD reference{corrected} was registered to the T1w image with a rigid transform by "
        "mutual information with ANTs [@ants]"
    )
    if run.series.get("Coregistration") == "boundary":
        return f"{rigid} and then by the boundary of the white matter [@bbr]"
    if run.series.get("Coregistration") == "mutual information":
        return f"{rigid} alone, because the boundary of the white matter was not clear"
    return rigid


def _quality(run: RunRecord) -> str | None:
    found = [
        words
        for words, names in _MEASURES.items()
        if any(run.series.get(REGISTRATION_FIELDS[name]) is not None for name in names)
    ]
    if not found:
        return None
    suspect = run.warns_of(Kind.SUSPECT_REGISTRATION)
    were, their = ("were", "their limits") if len(found) > 1 else ("was", "its limit")
    result = f"beyond {their}, so that it has probably failed" if suspect else "within limits"
    whose = "fMRIPrep’s" if run.kind == FMRIPREP else "the"
    return f"{whose} registration was judged by {joined(found)}, which {were} {result}"


def _brain(run: RunRecord) -> str | None:
    if run.series.get("BrainMask") == "T1w":
        return (
            "the brain mask of the T1w image, carried through the registration, less the voxels "
            "without signal, was the brain mask of the run"
        )
    return None


def _of_derivatives(run: RunRecord) -> str:
    space = quoted(mapping(run.series.get("InputData")).get("Space") or "an unknown space")
    whose, state, tables = "fMRIPrep’s", "preprocessed", "confounds"
    if run.kind == XCP_D:
        whose, state, tables = "XCP-D’s", "denoised", "tables of motion and outliers"
    if space == "fsLR":
        return (
            f"{whose} {state} grayordinates (fsLR, 91k) and {tables} were used; no image was "
            "registered or resampled"
        )
    taken = f"{whose} {state} BOLD series in {space} space and its {tables} were used"
    if space == mapping(run.series.get("Template")).get("Name", run.naming.space):
        return f"{taken}, and no image was registered"
    maker = "TemplateFlow’s transform" if run.kind == XCP_D else "fMRIPrep’s transforms"
    return f"{taken}, with {maker} from there to {template(run)}"


# --- a BOLD run ------------------------------------------------------------------------------


def preprocessing(runs: Sequence[RunRecord]) -> str:
    """Dummy and bad volumes, slice timing, motion, outliers, grand mean."""
    parts = [
        said([_slice_timing(run) for run in runs]),
        _dummy_volumes(runs),
        said([left_out(run) for run in runs]),
        _bad_volumes(runs),
        censoring(runs),
        said([_motion(run) for run in runs]),
        said([_echoes(run) for run in runs]),
        said([_outliers(run) for run in runs]),
        said([_grand_mean(run) for run in runs]),
    ]
    return " ".join(part for part in parts if part)


def _slice_timing(run: RunRecord) -> str | None:
    corrected = run.series.get("SliceTimingCorrected")
    if corrected is None:
        return None
    if not corrected:
        return "slice timing was not corrected"
    if run.kind == FMRIPREP:
        return "slice timing was corrected by fMRIPrep"
    if run.kind == XCP_D:
        return "slice timing had been corrected before XCP-D"
    return (
        "slice timing was corrected with a Kaiser-windowed sinc, after head motion had been "
        "estimated and before it was removed, to the middle between the first and the last slice"
    )


def _dummy_volumes(runs: Sequence[RunRecord]) -> str:
    counts = [int(run.series.get("DummyVolumes") or 0) for run in runs]
    others = (SERIES, XCP_D)
    of_volumes = [count for run, count in zip(runs, counts, strict=True) if run.kind not in others]
    if not of_volumes:
        return ""

    def clause(run: RunRecord, count: int) -> str | None:
        if run.kind in others:
            return None
        detected = run.series.get("DummyVolumesDetected")
        if detected is None:
            return "non-steady-state volumes at the start of the run were excluded"
        if not detected:
            were = "was" if count == 1 else "were"
            return f"the first {counted(count, 'volume')} of the run {were} excluded, as requested"
        by = "by fMRIPrep " if run.kind == FMRIPREP else "from the global signal "
        return f"non-steady-state volumes at the start of the run were detected {by}and excluded"

    text = said([clause(run, count) for run, count in zip(runs, counts, strict=True)])
    return f"{text} This excluded {span(of_volumes)} volumes per run."


def _bad_volumes(runs: Sequence[RunRecord]) -> str:
    counts = [_n_bad(run) for run in runs]
    known = [count for count in counts if count is not None]
    if not known:
        return ""
    affected = [count for count in known if count]
    judged = any(run.kind != XCP_D for run in runs)  # its series have no brightness
    what = "empty, frozen, or far too bright or too dark" if judged else "empty or frozen"
    start = f"Volumes that were {what} as a whole were looked for"
    if not affected:
        return f"{start}; there were none."
    return (
        f"{start}. {counted(len(affected), 'run')} of {len(runs)} had {span(affected)} of them. "
        "They were left out of every estimate and fit, and interpolated in time for BrainLM."
    )


def _n_bad(run: RunRecord) -> int | None:
    """Bad volumes of a run, without those that were censored for head motion."""
    n_bad = _count(run.series.get("BadVolumes"))
    return None if n_bad is None else n_bad - n_censored(run)


def _count(value: object) -> int | None:
    """A number of volumes, recorded as such or as a list of them."""
    if isinstance(value, list | dict):
        return len(value)
    number = as_float(value)
    return None if number is None else int(number)


def _motion(run: RunRecord) -> str | None:
    if run.kind == XCP_D:
        return "head motion had been corrected before XCP-D, whose table of motion was used"
    if run.kind == FMRIPREP:
        return "head motion had been corrected by fMRIPrep, whose motion parameters were used"
    if run.kind != RAW:
        return None
    text = (
        "head motion was estimated by rigid-body realignment (Gauss–Newton) to the median of "
        "steady-state volumes spread over the run"
    )
    if run.series.get("Reference") == "sbref":
        text += (
            ", which was registered rigidly (mutual information) to the run’s single-band "
            "reference; this was the BOLD reference of all further registrations"
        )
    return f"{text}, and volumes were resampled by cubic splines"


def _echoes(run: RunRecord) -> str | None:
    times = run.series.get("EchoTimes")
    if run.kind != RAW or not isinstance(times, list) or not times:
        return None
    shown = joined([f"{1000 * float(time):.3g}" for time in times])
    return (
        f"the {len(times)} echoes ({shown} ms) were resampled by the motion of the first, T2* was "
        "estimated in each voxel by a log-linear fit over the echoes with signal, as in tedana "
        "[@tedana], and the echoes were averaged with the weights TE · exp(−TE / T2*), normalised "
        "to a sum of 1 [@posse]" + _te_dependence(run)
    )


def _te_dependence(run: RunRecord) -> str:
    software = run.series.get("EchoDenoising")
    if not software:
        return ""
    if run.warns_of(Kind.TEDANA_REJECTED_ALL):
        return f"; {quoted(software)} [@tedana;@kundu] accepted no component, and none was removed"
    counts = [run.series.get(f"Tedana{name}") for name in ("RejectedComponents", "Components")]
    return (
        f"; components that do not depend on the echo time as BOLD does ({counts[0]} of "
        f"{counts[1]}) were found by {quoted(software)} [@tedana;@kundu] and removed by linear "
        "regression"
    )


def _outliers(run: RunRecord) -> str | None:
    fd = as_float(run.series.get("FramewiseDisplacementThreshold"))
    dvars = as_float(run.series.get("StandardisedDVARSThreshold"))
    if run.kind == FMRIPREP:
        return "framewise displacement and DVARS were taken from fMRIPrep’s confounds"
    if fd is None or dvars is None:
        return None
    return (
        "framewise displacement [@power] and standardised DVARS were computed, and volumes above "
        f"{fd:g} mm or {dvars:g}, respectively, were marked as motion outliers but kept"
    )


def _grand_mean(run: RunRecord) -> str | None:
    mean = as_float(run.series.get("GrandMean"))
    if mean is None:
        return None
    before = " in the preprocessed series" if run.kind == XCP_D else ""
    return (
        "the run was multiplied by one factor that sets the median of the brain"
        f"{before} to {mean:g}"
    )


# --- denoising -------------------------------------------------------------------------------


def denoising(runs: Sequence[RunRecord]) -> str:
    """ICA, removal of components or confounds, and the filters, in the order of their use."""
    parts = [_decomposition(runs), said([_removal(run) for run in runs])]
    return " ".join(part for part in parts if part)


def _decomposition(runs: Sequence[RunRecord]) -> str:
    found = [run.components for run in runs]
    with_ica = [one for one in found if one.get("NumberOfComponents")]
    if not with_ica:
        return ""
    fwhm = span(float(one["SmoothingFWHM"]) for one in with_ica)
    text = said(
        [
            f"the realigned, unfiltered volumes were smoothed with a Gaussian kernel of {fwhm} mm "
            "(FWHM) for the decomposition alone, and decomposed into spatially independent "
            "components (FastICA [@fastica])"
            if one.get("NumberOfComponents")
            else None
            for one in found
        ]
    )
    components = span(float(one["NumberOfComponents"]) for one in with_ica)
    noise = span(float(one["NumberOfNoiseComponents"]) for one in with_ica)
    seeds = span(float(one["RandomSeed"]) for one in with_ica)
    return (
        f"{text} Their number was estimated by minimum description length [@waxkailath], and "
        "limited to a third of the volumes and to 70 (components per run: "
        f"{components}; random seed: {seeds}). They were classified with the features and decision "
        f"limits of ICA-AROMA [@aroma], as implemented in brainlm-bids (noise components per run: "
        f"{noise})."
    )


def _removal(run: RunRecord) -> str | None:
    if run.kind == SERIES:
        return None
    if run.kind == XCP_D:
        return cleaning(run)
    mode = str(run.series.get("Denoising") or "")
    filters = _filters(run)
    if mode in ("nonaggr", "aggr"):
        how = "non-aggressively" if mode == "nonaggr" else "aggressively"
        text = (
            "the components classified as noise were removed from the unfiltered, unsmoothed "
            f"parcel series {how} by linear regression"
        )
        return f"{text}, and then {filters}" if filters else text
    if mode.startswith("confounds:"):
        return _regression(run, mode.partition(":")[2], filters)
    none = "no noise components were removed"
    if run.components.get("NumberOfComponents"):
        none = "none of the components was removed"
    return f"{none}; {filters}" if filters else none


def _regression(run: RunRecord, strategy: str, filters: str) -> str:
    names = run.series.get("RegressedConfounds")
    number = f"{len(names)} " if isinstance(names, list) else ""
    text = (
        f"the {number}confounds that nilearn’s [@nilearn] strategy “{quoted(strategy)}” selects "
        "from those of fMRIPrep were regressed out of the parcel series"
    )
    if filters:
        text = f"{filters}, the confounds being filtered alike, and {text}"
    if run.series.get("CensoredVolumes"):
        text += "; censored volumes were interpolated linearly and left out of the regression"
    return text


def _filters(run: RunRecord) -> str:
    high, low = (as_float(run.series.get(f"{name}PassCutoff")) for name in ("High", "Low"))
    text = ""
    if high is not None:
        text = (
            "slow drifts were removed with the Gaussian-weighted running-line high-pass filter of "
            f"FSL [@fsl;@smith] with a full width of {high:g} s"
        )
    if low is not None:
        text += " and " if text else ""
        text += f"a Gaussian low-pass filter with a cut-off period of {low:g} s was applied"
    return text
