"""The methods text: facts about what was done in, Markdown and BibTeX out (no file is touched).

Only what was done is described, and only works that the text cites are listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from brainlm_bids.report import model_facts
from brainlm_bids.report.references import bibtex, cite, reference_list
from brainlm_bids.report.values import joined


def methods(facts: Mapping[str, Any]) -> tuple[str, str]:
    """Describe how runs were processed.

    Parameters
    ----------
    facts
        All optional: `version` of the program; `versions` of packages by name; `source` ("raw",
        "fmriprep", "timeseries"); `has_t1w` (None: it differs between subjects);
        `brain_extraction` (method, see `brain_mask_t1w`); `template` and `atlas` (labels);
        `dummy_scans` (None: detected); `fd_spike_threshold` in mm; `dvars_spike_threshold`;
        `high_pass` and `low_pass` in s; `denoise` ("nonaggr", "aggr", "none" or
        "confounds:<strategy>"); `model_tr` in s; `scaling_stats` (name of a file of population
        statistics); `mask_ratio` (a list); `models`, each with `label`, `family`, `untrained`,
        `sha256`, `licence`, `warning`.

    Returns
    -------
    tuple of str
        Markdown and BibTeX.
    """
    parts = ["# Methods", _opening(facts)]
    if facts.get("source") != "timeseries":
        parts += ["## Anatomy and registration", _registration(facts)]
        parts += ["## Functional preprocessing", _functional(facts)]
    parts += ["## Parcels and scaling", _parcels(facts)]
    models = facts.get("models") or []
    if models:
        parts += ["## BrainLM", _brainlm(facts, models)]
    if facts.get("versions"):
        parts += ["## Software", _software(facts["versions"])]
    return _with_references(parts)


def cohort_methods(facts: Mapping[str, Any]) -> tuple[str, str]:
    """Describe how a cohort was analysed.

    Parameters
    ----------
    facts
        `scaling_stats` (name of a given file, or None), `scaling_volumes` (None: all),
        `max_mean_fd` in mm (None: no limit), `min_coverage`, `include_suspect`, `models`
        (labels), `targets`, `regress_out`, `permutations`, `version`, `versions`.

    Returns
    -------
    tuple of str
        Markdown and BibTeX.
    """
    parts = ["# Methods", "## Scaling across participants", _cohort_scaling(facts)]
    if facts["models"]:
        parts += ["## BrainLM", _cohort_models(facts)]
    if facts["targets"]:
        parts += ["## Decoding", _cohort_decoding(facts)]
    parts += ["## Software", _software({**facts["versions"], "brainlm-bids": facts["version"]})]
    return _with_references(parts)


def _with_references(parts: Sequence[str]) -> tuple[str, str]:
    text, cited = cite("\n\n".join(parts))
    if cited:
        text = f"{text}\n\n## References\n\n{reference_list(cited)}"
    return f"{text}\n", bibtex(cited)


# --- one run ---------------------------------------------------------------------------------


def _opening(facts: Mapping[str, Any]) -> str:
    version = f" {facts['version']}" if facts.get("version") else ""
    start = f"Results were obtained with brainlm-bids{version}, which is based on Nipype [@nipype],"
    if facts.get("source") == "fmriprep":
        return f"{start} from existing fMRIPrep derivatives [@fmriprep] in BIDS format [@bids]."
    if facts.get("source") == "timeseries":
        return f"{start} from existing parcel time series, which were used as given."
    return f"{start} from raw data in BIDS format [@bids]."


def _registration(facts: Mapping[str, Any]) -> str:
    template = _template_name(facts.get("template"))
    if facts.get("source") == "fmriprep":
        return f"The normalisation to {template} was taken from the fMRIPrep derivatives."
    direct = (
        f"the BOLD reference was registered directly to {template} with an affine transform and a "
        "smooth non-linear transform that align it with the boundary of the template's white "
        "matter [@bbr] or, where this boundary was not clear, with a symmetric diffeomorphic "
        "transform (SyN) [@syn] of ANTs [@ants]"
    )
    if facts.get("has_t1w") is False:
        return f"No T1w image was available: {direct}."
    text = (
        f"The T1w image was corrected for intensity non-uniformity (N4) [@n4]."
        f"{_brain_extraction(facts)} The image was registered to {template} with an affine "
        "transform of ANTs [@ants] and then with a greedy diffeomorphism [@greedy] whose steps "
        "maximise the local correlation by least squares [@lucaskanade]. The BOLD reference was "
        "registered to the T1w image with a rigid transform, first by mutual information, then, "
        "where it was clear, by the boundary of the white matter [@bbr]."
    )
    if facts.get("has_t1w") is None:
        text += f" For subjects without a T1w image, {direct}."
    return text


def _brain_extraction(facts: Mapping[str, Any]) -> str:
    method = str(facts.get("brain_extraction") or "")
    if "deepbet" in method:
        return " The brain was extracted with deepbet [@deepbet]."
    return f" The brain was extracted with this method: {method}." if method else ""


def _template_name(template: object) -> str:
    label = str(template or "template space")
    if label.startswith("MNI152NLin6"):
        return f"{label} [@nlin6]"
    if label.startswith("MNI152NLin2009"):
        return f"{label} [@nlin2009]"
    return label


def _functional(facts: Mapping[str, Any]) -> str:
    dummy, low = facts.get("dummy_scans"), facts.get("low_pass")
    sentences = [
        "Non-steady-state volumes at the start of a run were detected and excluded."
        if dummy is None
        else f"The first {dummy} volumes of each run were excluded.",
        ""
        if facts.get("source") == "fmriprep"
        else "Head motion was estimated by rigid-body (Gauss–Newton) realignment to the mean of "
        "steady-state volumes.",
        "Framewise displacement [@power] and standardised DVARS were computed; volumes above "
        f"{facts.get('fd_spike_threshold', 0.5):g} mm or "
        f"{facts.get('dvars_spike_threshold', 1.5):g}, respectively, were marked as motion "
        "outliers but kept.",
        "Each run was multiplied by a single factor that sets the median of the brain to 10000. "
        "Slow drifts were removed with the Gaussian-weighted running-line filter of FSL "
        f"[@fsl;@smith] with a full width of {facts.get('high_pass', 100.0):g} s.",
        f"A Gaussian low-pass filter with a cut-off period of {low:g} s was applied."
        if low
        else "",
        _denoising(facts),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _denoising(facts: Mapping[str, Any]) -> str:
    mode = facts.get("denoise", "nonaggr")
    if mode == "none":
        return "No noise components were removed."
    if mode.startswith("confounds:"):
        return (
            f"The confounds that nilearn's strategy {mode.partition(':')[2]!r} selects from those "
            "of fMRIPrep [@fmriprep] were filtered in the same way and regressed out of the "
            "filtered series; censored volumes were interpolated."
        )
    how = "aggressively" if mode == "aggr" else "non-aggressively"
    return (
        "Spatial independent components (FastICA) [@fastica] were classified with the features "
        "and decision limits of ICA-AROMA [@aroma], as implemented in brainlm-bids, and components "
        f"classified as noise were removed {how} by linear regression. The series were not "
        "spatially smoothed."
    )


def _parcels(facts: Mapping[str, Any]) -> str:
    atlas = str(facts.get("atlas") or "A424")
    if "approx" in atlas.lower():
        what = (
            f"The atlas was {atlas}, an approximation in which the grey matter of the template is "
            "divided by the nearest of the 424 published centroids of A424 [@nemati]. It agrees "
            "with A424 in about half of the voxels, so results must not be compared with those "
            "obtained with A424."
        )
    else:
        what = (
            "Series were averaged within the 424 parcels of the A424 atlas [@nemati], which "
            "combines the cortical parcels of the Human Connectome Project [@glasser] with "
            "subcortical and cerebellar parcels; networks are those of AA-7 [@akiki]."
        )
    statistics = (
        "the given population statistics"
        if facts.get("scaling_stats")
        else "the median and the interquartile range of the recording itself"
    )
    return (
        f"{what} The volumes were sampled on the grid of the atlas. Parcels without data are n/a "
        "in the series and were replaced by the median for the model. Each parcel was centred and "
        f"scaled with {statistics}, and the series were resampled to a sampling interval of "
        f"{facts.get('model_tr', 0.735):g} s where the repetition time differed from it by more "
        "than 2 %."
    )


def _brainlm(facts: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> str:
    ratios = ", ".join(f"{ratio:g}" for ratio in facts.get("mask_ratio") or [])
    scored = (
        f"Reconstruction was evaluated with {ratios} of the values masked, against the mean of "
        "each parcel and ridge regression on the same masks."
        if ratios
        else "Reconstruction was evaluated against simple predictors on the same masks."
    )
    start = (
        "Embeddings are the CLS token of the BrainLM encoder [@brainlm], computed without masking "
        f"for windows of 200 volumes. {scored}"
    )
    return f"{start}\n\n" + "\n".join(_model(model) for model in models)


def _model(model: Mapping[str, Any]) -> str:
    """A line of the list of models."""
    line = f"- {model.get('label', 'model')}"
    if model.get("family"):
        line += f", family {model['family']}"
    if model.get("untrained"):
        line += ": random, untrained weights, used as a control"
    elif model.get("sha256"):
        line += f": weights with SHA-256 {model['sha256']}, licence: {model_facts.licence(model)}"
    return " ".join([f"{line}.", *([model["warning"]] if model.get("warning") else [])])


# --- a cohort --------------------------------------------------------------------------------


def _cohort_scaling(facts: Mapping[str, Any]) -> str:
    limits = [
        "whose parcels were on average covered by a fraction of less than "
        f"{facts['min_coverage']:g}"
    ]
    if facts["max_mean_fd"] is not None:
        limits.append(f"whose mean framewise displacement was above {facts['max_mean_fd']:g} mm")
    if not facts.get("include_suspect"):
        limits.append(
            "whose registration had probably failed (contrast and cost at the boundary of white "
            "matter, overlap of brain masks)"
        )
    excluded = f"Recordings {' or '.join(limits)} were excluded."
    if facts["scaling_stats"] is not None:
        return f"{excluded} Series were scaled with the statistics in {facts['scaling_stats']}."
    n = facts["scaling_volumes"]
    volumes = "all volumes" if n is None else f"the first {n} volumes"
    return (
        f"{excluded} The mean of each parcel was removed from every recording. All recordings were "
        f"then scaled with the median and the interquartile range of each parcel over {volumes} of "
        "all recordings, as in the training data of BrainLM."
    )


def _cohort_models(facts: Mapping[str, Any]) -> str:
    return (
        f"Each recording was embedded by BrainLM [@brainlm] ({', '.join(facts['models'])}); its "
        "embedding is the mean over its windows. The consensus network of a parcel is its most "
        "frequent network, with one vote per participant, and was compared with the AA-7 networks "
        "[@akiki]."
    )


def _cohort_decoding(facts: Mapping[str, Any]) -> str:
    targets, confounds = list(facts["targets"]), list(facts["regress_out"])
    removed = f", {_were(confounds)} regressed out [@snoek]," if confounds else ""
    return (
        f"{_were(targets)} decoded from the embedding, from functional "
        "connectivity (Fisher z) and from the embedding by the same architecture with random "
        "weights, using ridge regression or L2-penalised logistic regression (scikit-learn "
        "[@sklearn]). Five-fold cross-validation kept all recordings of a participant in the same "
        f"fold; features were standardised{removed} and the penalty was chosen by three inner "
        "folds, all within the training folds. This was repeated up to ten times with different "
        "folds, and the predictions were averaged. Intervals are 95 % bootstrap intervals over "
        f"participants; p values come from {facts['permutations']} permutations of the target "
        "between participants [@winkler]."
    )


def _were(names: list[str]) -> str:
    return f"{joined(names)} {'was' if len(names) == 1 else 'were'}"


def _software(versions: Mapping[str, str]) -> str:
    return "\n".join(f"- {name} {versions[name]}" for name in sorted(versions, key=str.lower))
