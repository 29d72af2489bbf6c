"""The methods text: facts about what was done in, Markdown and BibTeX out (no file is touched).

Only what was done is described, and only works that the text names are listed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from brainlm_bids.files import DATA, read_text


@dataclass(frozen=True)
class _Reference:
    """A work: how the text names it, and its line in the list of references."""

    short: str
    full: str


_REFERENCES: dict[str, _Reference] = {
    "brainlm": _Reference(
        "Ortega Caro et al., 2024",
        "Ortega Caro J, Fonseca AHdO, Rizvi SA, et al. BrainLM: A foundation model for brain "
        "activity recordings. International Conference on Learning Representations (ICLR), 2024. "
        "https://doi.org/10.1101/2023.09.12.557460",
    ),
    "bids": _Reference(
        "Gorgolewski et al., 2016",
        "Gorgolewski KJ, Auer T, Calhoun VD, et al. The brain imaging data structure, a format "
        "for organizing and describing outputs of neuroimaging experiments. Scientific Data 3, "
        "160044, 2016. https://doi.org/10.1038/sdata.2016.44",
    ),
    "nipype": _Reference(
        "Gorgolewski et al., 2011",
        "Gorgolewski K, Burns CD, Madison C, et al. Nipype: a flexible, lightweight and "
        "extensible neuroimaging data processing framework in Python. Frontiers in "
        "Neuroinformatics 5, 13, 2011. https://doi.org/10.3389/fninf.2011.00013",
    ),
    "n4": _Reference(
        "Tustison et al., 2010",
        "Tustison NJ, Avants BB, Cook PA, et al. N4ITK: improved N3 bias correction. IEEE "
        "Transactions on Medical Imaging 29(6), 1310–1320, 2010. "
        "https://doi.org/10.1109/TMI.2010.2046908",
    ),
    "deepbet": _Reference(
        "Fisch et al., 2024",
        "Fisch L, Zumdick S, Barkhau C, et al. deepbet: fast brain extraction of T1-weighted MRI "
        "using convolutional neural networks. Computers in Biology and Medicine, 2024. "
        "https://arxiv.org/abs/2308.07003",
    ),
    "ants": _Reference(
        "Avants et al., 2011",
        "Avants BB, Tustison NJ, Song G, et al. A reproducible evaluation of ANTs similarity "
        "metric performance in brain image registration. NeuroImage 54(3), 2033–2044, 2011. "
        "https://doi.org/10.1016/j.neuroimage.2010.09.025",
    ),
    "greedy": _Reference(
        "Christensen et al., 1996",
        "Christensen GE, Rabbitt RD, Miller MI. Deformable templates using large deformation "
        "kinematics. IEEE Transactions on Image Processing 5(10), 1435–1447, 1996. "
        "https://doi.org/10.1109/83.536892",
    ),
    "lucaskanade": _Reference(
        "Lucas & Kanade, 1981",
        "Lucas BD, Kanade T. An iterative image registration technique with an application to "
        "stereo vision. IJCAI, 674–679, 1981. Proceedings of the 7th International Joint "
        "Conference on Artificial Intelligence, Vancouver.",
    ),
    "bbr": _Reference(
        "Greve & Fischl, 2009",
        "Greve DN, Fischl B. Accurate and robust brain image alignment using boundary-based "
        "registration. NeuroImage 48(1), 63–72, 2009. "
        "https://doi.org/10.1016/j.neuroimage.2009.06.060",
    ),
    "syn": _Reference(
        "Avants et al., 2008",
        "Avants BB, Epstein CL, Grossman M, Gee JC. Symmetric diffeomorphic image registration "
        "with cross-correlation. Medical Image Analysis 12(1), 26–41, 2008. "
        "https://doi.org/10.1016/j.media.2007.06.004",
    ),
    "nlin6": _Reference(
        "Evans et al., 2012",
        "Evans AC, Janke AL, Collins DL, Baillet S. Brain templates and atlases. NeuroImage "
        "62(2), 911–922, 2012. https://doi.org/10.1016/j.neuroimage.2012.01.024",
    ),
    "nlin2009": _Reference(
        "Fonov et al., 2009",
        "Fonov VS, Evans AC, McKinstry RC, Almli CR, Collins DL. Unbiased nonlinear average "
        "age-appropriate brain templates from birth to adulthood. NeuroImage 47(Suppl 1), S102, "
        "2009. https://doi.org/10.1016/S1053-8119(09)70884-5",
    ),
    "power": _Reference(
        "Power et al., 2012",
        "Power JD, Barnes KA, Snyder AZ, Schlaggar BL, Petersen SE. Spurious but systematic "
        "correlations in functional connectivity MRI networks arise from subject motion. "
        "NeuroImage 59(3), 2142–2154, 2012. https://doi.org/10.1016/j.neuroimage.2011.10.018",
    ),
    "fsl": _Reference(
        "Jenkinson et al., 2012",
        "Jenkinson M, Beckmann CF, Behrens TEJ, Woolrich MW, Smith SM. FSL. NeuroImage 62(2), "
        "782–790, 2012. https://doi.org/10.1016/j.neuroimage.2011.09.015",
    ),
    "smith": _Reference(
        "Smith et al., 2004",
        "Smith SM, Jenkinson M, Woolrich MW, et al. Advances in functional and structural MR "
        "image analysis and implementation as FSL. NeuroImage 23(Suppl 1), S208–S219, 2004. "
        "https://doi.org/10.1016/j.neuroimage.2004.07.051",
    ),
    "fastica": _Reference(
        "Hyvärinen, 1999",
        "Hyvärinen A. Fast and robust fixed-point algorithms for independent component "
        "analysis. IEEE Transactions on Neural Networks 10(3), 626–634, 1999. "
        "https://doi.org/10.1109/72.761722",
    ),
    "aroma": _Reference(
        "Pruim et al., 2015",
        "Pruim RHR, Mennes M, van Rooij D, et al. ICA-AROMA: a robust ICA-based strategy for "
        "removing motion artifacts from fMRI data. NeuroImage 112, 267–277, 2015. "
        "https://doi.org/10.1016/j.neuroimage.2015.02.064",
    ),
    "nemati": _Reference(
        "Nemati et al., 2020",
        "Nemati S, Akiki TJ, Roscoe J, et al. A unique brain connectome fingerprint predates and "
        "predicts response to antidepressants. iScience 23(1), 100800, 2020. "
        "https://doi.org/10.1016/j.isci.2019.100800",
    ),
    "glasser": _Reference(
        "Glasser et al., 2016",
        "Glasser MF, Coalson TS, Robinson EC, et al. A multi-modal parcellation of human "
        "cerebral cortex. Nature 536, 171–178, 2016. https://doi.org/10.1038/nature18933",
    ),
    "akiki": _Reference(
        "Akiki & Abdallah, 2019",
        "Akiki TJ, Abdallah CG. Determining the hierarchical architecture of the human brain "
        "using subject-level clustering of functional networks. Scientific Reports 9, 19290, "
        "2019. https://doi.org/10.1038/s41598-019-55738-y",
    ),
    "fmriprep": _Reference(
        "Esteban et al., 2019",
        "Esteban O, Markiewicz CJ, Blair RW, et al. fMRIPrep: a robust preprocessing pipeline "
        "for functional MRI. Nature Methods 16, 111–116, 2019. "
        "https://doi.org/10.1038/s41592-018-0235-4",
    ),
}
_REFERENCES |= {
    "sklearn": _Reference(
        "Pedregosa et al., 2011",
        "Pedregosa F, Varoquaux G, Gramfort A, et al. Scikit-learn: machine learning in Python. "
        "Journal of Machine Learning Research 12, 2825–2830, 2011. "
        "https://jmlr.org/papers/v12/pedregosa11a.html",
    ),
    "snoek": _Reference(
        "Snoek et al., 2019",
        "Snoek L, Miletić S, Scholte HS. How to control for confounds in decoding analyses of "
        "neuroimaging data. NeuroImage 184, 741–760, 2019. "
        "https://doi.org/10.1016/j.neuroimage.2018.09.074",
    ),
    "winkler": _Reference(
        "Winkler et al., 2015",
        "Winkler AM, Webster MA, Vidaurre D, Nichols TE, Smith SM. Multi-level block permutation. "
        "NeuroImage 123, 253–268, 2015. https://doi.org/10.1016/j.neuroimage.2015.05.092",
    ),
}
_CITATION = re.compile(r"\[@([a-z0-9;@]+)\]")


def methods(facts: Mapping[str, Any]) -> tuple[str, str]:
    """Describe what was done: (Markdown, BibTeX).

    `facts`, all optional: `version` of the program; `versions` {package: version}; `source`
    ("raw", "fmriprep", "timeseries"); `has_t1w` (bool, or None if it differs between subjects);
    `brain_extraction` (method, see `brain_mask_t1w`); `template` and `atlas` labels;
    `dummy_scans` (None: detected); `fd_spike_threshold` mm; `dvars_spike_threshold`; `high_pass`
    s; `low_pass` s; `denoise` ("nonaggr", "aggr", "none"); `model_tr` s; `scaling_stats` (bool
    or path); `mask_ratio` list; `models`: list of {label, family, untrained, sha256, licence}.
    """
    parts = ["# Methods", _opening(facts)]
    if facts.get("source") != "timeseries":
        parts += ["## Anatomy and registration", _registration(facts)]
        parts += ["## Functional preprocessing", _functional(facts)]
    parts += [
        "## Parcels and scaling",
        _parcels(facts),
    ]
    models = facts.get("models") or []
    if models:
        parts += ["## BrainLM", _brainlm(facts, models)]
    if facts.get("versions"):
        parts += ["## Software", _software(facts["versions"])]
    text, cited = _cite("\n\n".join(part for part in parts if part))
    listed = "\n".join(f"{n}. {_REFERENCES[key].full}" for n, key in enumerate(cited, start=1))
    return f"{text}\n\n## References\n\n{listed}\n", _bibtex(cited)


def cohort_methods(facts: Mapping[str, Any]) -> tuple[str, str]:
    """Describe what was done with the cohort: (Markdown, BibTeX).

    `facts`: `scaling_stats` (name of a given file, or None), `scaling_volumes` (None: all),
    `max_mean_fd` mm (None: no limit), `min_coverage`, `models` (labels), `targets`, `regress_out`,
    `permutations`, `version`, `versions`.
    """
    parts = ["# Methods", "## Scaling across participants", _cohort_scaling(facts)]
    if facts["models"]:
        parts += ["## BrainLM", _cohort_models(facts)]
    if facts["targets"]:
        parts += ["## Decoding", _cohort_decoding(facts)]
    parts += ["## Software", _software({**facts["versions"], "brainlm-bids": facts["version"]})]
    text, cited = _cite("\n\n".join(parts))
    listed = "\n".join(f"{n}. {_REFERENCES[key].full}" for n, key in enumerate(cited, start=1))
    references = f"\n\n## References\n\n{listed}" if cited else ""
    return f"{text}{references}\n", _bibtex(cited)


def _cohort_scaling(facts: Mapping[str, Any]) -> str:
    lines = [
        f"Recordings that cover less than {facts['min_coverage']:g} of the parcels on average "
    ]
    if facts["max_mean_fd"] is not None:
        lines.append(f"or whose mean framewise displacement is above {facts['max_mean_fd']:g} mm ")
    lines.append("were left out. ")
    if facts["scaling_stats"] is not None:
        return "".join(lines) + f"Series were scaled with the statistics {facts['scaling_stats']}."
    n = facts["scaling_volumes"]
    volumes = "all volumes" if n is None else f"the first {n} volumes"
    return "".join(lines) + (
        "In every recording the mean of each parcel was removed; the median and the interquartile "
        f"range of each parcel over {volumes} of all recordings then served to scale every one, "
        "as for the training data of BrainLM."
    )


def _cohort_models(facts: Mapping[str, Any]) -> str:
    return (
        f"Each recording was embedded by BrainLM [@brainlm] ({', '.join(facts['models'])}), the "
        "mean over its windows. Consensus networks are the most frequent network of each parcel, "
        "every participant with one vote, compared with the AA-7 networks [@akiki]."
    )


def _cohort_decoding(facts: Mapping[str, Any]) -> str:
    out = facts["regress_out"]
    removed = f", {', '.join(out)} regressed out [@snoek]" if out else ""
    return (
        f"{', '.join(facts['targets'])} were decoded from the embedding, from functional "
        "connectivity (Fisher z), and from the embedding by the same architecture with random "
        "weights, by ridge or logistic regression with L2 penalty (scikit-learn [@sklearn]). "
        "Five folds held whole participants; features were standardised"
        f"{removed} and the penalty was chosen by three inner folds, both within the training "
        "folds; this was repeated up to ten times with other folds, and predictions were averaged. "
        "Intervals are 95 % bootstrap intervals over participants; p is that of "
        f"{facts['permutations']} permutations of the target between participants [@winkler]."
    )


def _cite(text: str) -> tuple[str, list[str]]:
    """Put names and years for the `[@key]` in the text; the keys in the order of their use."""
    cited: dict[str, None] = {}

    def name(found: re.Match[str]) -> str:
        keys = found[1].replace("@", "").split(";")
        cited.update(dict.fromkeys(keys))
        return "(" + "; ".join(_REFERENCES[key].short for key in keys) + ")"

    return _CITATION.sub(name, text), list(cited)


def _bibtex(keys: Sequence[str]) -> str:
    text = read_text(DATA / "methods.bib")
    entries = {
        match[1]: match[0] for match in re.finditer(r"@\w+\{(\w+),.*?^\}", text, re.S | re.M)
    }
    return "\n\n".join(entries[key] for key in keys) + "\n"


def _opening(facts: Mapping[str, Any]) -> str:
    version = f" {facts['version']}" if facts.get("version") else ""
    start = f"The results were made with brainlm-bids{version}, which builds on Nipype [@nipype],"
    if facts.get("source") == "fmriprep":
        return f"{start} from derivatives of fMRIPrep [@fmriprep] organised after BIDS [@bids]."
    if facts.get("source") == "timeseries":
        return f"{start} from parcel series that had been made before, as they were given."
    return f"{start} from raw data organised after BIDS [@bids]."


def _registration(facts: Mapping[str, Any]) -> str:
    template = _template_name(facts.get("template"))
    if facts.get("source") == "fmriprep":
        return f"Normalisation to {template} was taken from the derivatives of fMRIPrep."
    direct = (
        f"the BOLD reference was registered straight to {template} with an affine and a "
        "smooth non-linear transform that follow the boundary of its white matter [@bbr], or, "
        "where that was not clear, with a symmetric diffeomorphic transform (SyN) [@syn] of ANTs "
        "[@ants]"
    )
    if facts.get("has_t1w") is False:
        return f"There was no T1w image: {direct}."
    method = str(facts.get("brain_extraction") or "")
    brain = " The brain was extracted with deepbet [@deepbet]." if "deepbet" in method else ""
    if method and not brain:
        brain = f" The brain was found with this method: {method}."
    text = (
        f"The T1w image was corrected for its bias field (N4) [@n4].{brain} The image was "
        f"registered to {template} with an affine transform of ANTs [@ants], then with a greedy "
        "diffeomorphism [@greedy] whose steps maximise local correlation by least squares "
        "[@lucaskanade]. The BOLD reference was registered to the T1w image with a rigid transform "
        "(mutual information, then, where it was clear, the boundary of white matter [@bbr])."
    )
    if facts.get("has_t1w") is None:
        text += f" Where a subject had no T1w image, {direct}."
    return text


def _template_name(template: object) -> str:
    label = str(template or "template space")
    if label.startswith("MNI152NLin6"):
        return f"{label} [@nlin6]"
    if label.startswith("MNI152NLin2009"):
        return f"{label} [@nlin2009]"
    return label


def _functional(facts: Mapping[str, Any]) -> str:
    dummy = facts.get("dummy_scans")
    start = (
        "Non-steady-state volumes at the start of a run were detected and left out."
        if dummy is None
        else f"The first {dummy} volumes of each run were left out."
    )
    spikes = (
        f"Framewise displacement [@power] and standardised DVARS were computed; volumes above "
        f"{facts.get('fd_spike_threshold', 0.5):g} mm or "
        f"{facts.get('dvars_spike_threshold', 1.5):g} were marked as motion outliers and kept."
    )
    motion = (
        ""
        if facts.get("source") == "fmriprep"
        else "Head motion was estimated by rigid "
        "(Gauss–Newton) realignment to the mean of steady-state volumes."
    )
    scale = (
        "Each run was multiplied by one factor that brings the median of its brain to 10000. "
        "Slow drift was removed with the Gaussian-weighted running line of FSL "
        f"[@fsl;@smith], {facts.get('high_pass', 100.0):g} s full width."
    )
    low = facts.get("low_pass")
    low_pass = (
        f"A Gaussian low-pass filter with a cut-off period of {low:g} s was applied." if low else ""
    )
    return " ".join(part for part in (start, motion, spikes, scale, low_pass, _ica(facts)) if part)


def _ica(facts: Mapping[str, Any]) -> str:
    mode = facts.get("denoise", "nonaggr")
    if mode == "none":
        return "Components of noise were not removed."
    if mode.startswith("confounds:"):
        return (
            f"The confounds that nilearn's strategy {mode.partition(':')[2]!r} takes from fMRIPrep "
            "[@fmriprep] were regressed out of the filtered series, filtered themselves; censored "
            "volumes were interpolated."
        )
    how = "aggressively" if mode == "aggr" else "non-aggressively"
    return (
        "Spatial independent components (FastICA) [@fastica] were classified by the features and "
        "limits of ICA-AROMA [@aroma] in an implementation of this program, and those classified "
        f"as noise were removed {how} by linear regression. No spatial smoothing was applied to "
        "the series."
    )


def _parcels(facts: Mapping[str, Any]) -> str:
    atlas = str(facts.get("atlas") or "A424")
    if "approx" in atlas.lower():
        what = (
            f"The atlas was {atlas}, an approximation: grey matter of the template split by the "
            "nearest of the 424 published centroids of A424 [@nemati]. It agrees with A424 in "
            "about half of the voxels, so the results must not be compared with those of A424."
        )
    else:
        what = (
            "Series were averaged in the 424 parcels of A424 [@nemati], which joins the cortical "
            "parcels of the Human Connectome Project [@glasser] with subcortical and cerebellar "
            "ones; networks are AA-7 [@akiki]."
        )
    scaled = (
        "with given population statistics"
        if facts.get("scaling_stats")
        else "with the median and the interquartile range of the recording itself"
    )
    return (
        f"{what} The volumes were sampled on the grid of the atlas. Parcels without data are n/a "
        f"in the series and were given to the model as the median. Each parcel was centred and "
        f"scaled {scaled}, and the series were brought to a sampling of "
        f"{facts.get('model_tr', 0.735):g} s where theirs differed by more than 2 %."
    )


def _brainlm(facts: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> str:
    ratios = facts.get("mask_ratio") or []
    lines = [
        "Embeddings are the CLS token of the encoder of BrainLM [@brainlm], computed without "
        "masking for windows of 200 volumes. "
        + (
            f"Reconstruction was scored with {', '.join(f'{r:g}' for r in ratios)} of the values "
            "masked, against the mean of each parcel and ridge regression on the same masks."
            if ratios
            else "Reconstruction was scored against simple predictors on the same masks."
        )
    ]
    for model in models:
        line = f"- {model.get('label', 'model')}"
        if model.get("family"):
            line += f", family {model['family']}"
        if model.get("untrained"):
            line += ": random, untrained weights, a control"
        elif model.get("sha256"):
            line += f": weights with sha256 {model['sha256']}"
            line += f", licence {model.get('licence') or 'CC BY-NC-ND 4.0'}"
        lines.append(" ".join([f"{line}.", *([model["warning"]] if model.get("warning") else [])]))
    return f"{lines[0]}\n\n" + "\n".join(lines[1:])


def _software(versions: Mapping[str, str]) -> str:
    return "\n".join(f"- {name} {versions[name]}" for name in sorted(versions, key=str.lower))
