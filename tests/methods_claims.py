"""Every claim of a methods text against the sidecars of the folder that it describes."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Sidecars = Mapping[str, Mapping[str, Any]]


def _kind(kind: str) -> Callable[[Sidecars], bool]:
    return lambda run: run["series"]["InputData"]["Kind"] == kind


def _is(part: str, field: str, *values: object) -> Callable[[Sidecars], bool]:
    return lambda run: run[part].get(field) in values


def _has(part: str, field: str) -> Callable[[Sidecars], bool]:
    return lambda run: bool(run[part].get(field))


def _here(field: str) -> Callable[[Sidecars], bool]:
    """What was done here, and not by the program that the run comes from."""
    return lambda run: bool(run["series"].get(field)) and not _kind("XCP-D")(run)


def _t1w(run: Sidecars) -> bool:
    return any("_T1w." in str(source) for source in run["series"]["Sources"])


def _suspect(run: Sidecars) -> bool:
    warnings = run["series"].get("Warnings", [])
    return any(one["Kind"] == "suspect_registration" for one in warnings)


def _alone(run: Sidecars) -> bool:
    return run["series"]["InputData"]["Kind"] == "raw" and not _t1w(run)


def _distortion(*methods: str) -> Callable[[Sidecars], bool]:
    return lambda run: run["series"].get("DistortionCorrection", {}).get("Method") in methods


# Words of the text, and the runs of which they are true: they stand there if there is one.
CLAIMS: dict[str, Callable[[Sidecars], bool]] = {
    "raw data in bids format": _kind("raw"),
    "outputs of fmriprep": _kind("fMRIPrep"),
    "outputs of xcp-d": _kind("XCP-D"),
    "had been denoised by xcp-d": _kind("XCP-D"),
    "no filter applied again": _kind("XCP-D"),
    "volumes that xcp-d had censored": lambda run: (
        "censored" in run["series"].get("BadVolumeReasons", [])
    ),
    "made with other software": _kind("series"),
    "there was no t1w image": _alone,
    "alone, because the boundary": _is("series", "Coregistration", "mutual information"),
    "and then by the boundary": _is("series", "Coregistration", "boundary"),
    "which were within limits": lambda run: (
        run["series"].get("RegistrationContrast") is not None and not _suspect(run)
    ),
    "it has probably failed": lambda run: _suspect(run),
    "single-band reference": _is("series", "Reference", "sbref"),
    "slice timing was corrected": _is("series", "SliceTimingCorrected", True),
    "slice timing was not corrected": _is("series", "SliceTimingCorrected", False),
    "distortion was not corrected": _distortion("none"),
    "distortion had been corrected by fmriprep": _distortion("by fMRIPrep"),
    "corrected with a field map": _distortion("field map"),
    "the phase difference of two": _distortion("two phases"),
    "with a phase difference of two": _distortion("phase difference"),
    "of opposite phase-encoding polarity": _distortion("pair of opposite polarity"),
    "moves the points at which": _distortion(
        "field map",
        "two phases",
        "phase difference",
        "pair of opposite polarity",
        "estimated from the T1w image",
    ),
    "was estimated from the t1w image": _distortion("estimated from the T1w image"),
    "steady-state volumes at the start": _is("series", "DummyVolumesDetected", True),
    "excluded, as requested": _is("series", "DummyVolumesDetected", False),
    "rigid-body realignment": _kind("raw"),
    "were resampled by the motion of the first": _has("series", "EchoTimes"),
    "do not depend on the echo time": _has("series", "EchoDenoising"),
    "marked as motion outliers": _has("series", "FramewiseDisplacementThreshold"),
    "multiplied by one factor": _has("series", "GrandMean"),
    "(fastica": _has("components", "NumberOfComponents"),
    "series non-aggressively": _is("series", "Denoising", "nonaggr"),
    "series aggressively": _is("series", "Denoising", "aggr"),
    "regressed out of the parcel series": _here("RegressedConfounds"),
    "high-pass filter of fsl": _here("HighPassCutoff"),
    "low-pass filter": _here("LowPassCutoff"),
    "approximation of a424": lambda run: bool(run["series"]["Atlas"].get("Approximate")),
    "interpolated by cubic splines at the voxels": lambda run: (
        run["series"]["InputData"]["Kind"] != "series"
        and run["series"]["InputData"].get("Space") != "fsLR"
    ),
    "resampled, before they were scaled": _has("scaled", "Resampling"),
    "of the recording itself": _is("scaled", "ScalingStatistics", "this recording"),
    "given to the model as their median": _has("scaled", "FilledParcels"),
    "embedding of a window is the cls token": lambda run: str(
        run["model"].get("Pooling")
    ).startswith("CLS"),
    "embedding of a window is the mean over": lambda run: str(
        run["model"].get("Pooling")
    ).startswith("mean"),
    "without overlap": lambda run: (
        bool(run["model"]) and run["model"]["WindowStride"] == run["model"]["WindowVolumes"]
    ),
    "starting every": lambda run: (
        bool(run["model"]) and run["model"]["WindowStride"] != run["model"]["WindowVolumes"]
    ),
    "padded to its length": _has("model", "PaddedVolumes"),
    "ran on a cpu": _is("model", "Device", "cpu"),
    "untrained weights": lambda run: bool(run["model"].get("Model", {}).get("untrained")),
}
# Never right, of whatever run.
NEVER = ("[@", "  ", "..", ": None", "nan ")


def runs_of(out: Path) -> list[dict[str, dict[str, Any]]]:
    """The sidecars of every run of a folder, read by their names alone."""
    runs = []
    for path in sorted(out.rglob("*_desc-denoised_timeseries.json")):
        if not path.with_name(path.name.replace("desc-denoised", "desc-robust")).exists():
            continue  # of a parcellation beside A424
        stem = path.name.partition("_space-")[0]

        def read(ending: str, folder: Path = path.parent, stem: str = stem) -> dict[str, Any]:
            found = sorted(folder.glob(f"{stem}_*{ending}"))
            return json.loads(found[0].read_text()) if found else {}

        runs.append(
            {
                "series": json.loads(path.read_text()),
                "scaled": read("desc-robust_timeseries.json"),
                "components": read("desc-aroma_metrics.json"),
                "model": read("desc-windows_embeddings.json"),
                "metrics": read("desc-reconstruction_metrics.json"),
            }
        )
    return runs


def sentences(text: str) -> list[str]:
    """The sentences of a text, in lower case, without its references."""
    body = re.sub(r"^#+ .*$", "", text.partition("## References")[0].lower(), flags=re.M)
    return re.split(r"(?<=[.!?])\s+", re.sub(r"\s+", " ", body))


def check(out: Path) -> str:
    """Compare the text of a folder with its sidecars; returns the text."""
    text = (out / "logs" / "CITATION.md").read_text()
    runs, told = runs_of(out), sentences(text)
    assert f"Results of {len(runs)} run" in text
    for words, is_true in CLAIMS.items():
        number = sum(is_true(run) for run in runs)
        found = [sentence for sentence in told if words in sentence]
        assert bool(found) == bool(number), f"{words!r} is true of {number} of {len(runs)} runs"
        if 0 < number < len(runs) and words != "untrained weights":
            counts = [re.match(r"in (\d+) of \d+ ", sentence) for sentence in found]
            assert sum(int(count[1]) for count in counts if count) == number, (words, found)
    _check_numbers(runs, text)
    for words in NEVER:
        assert words not in text, words
    return text


def _check_numbers(runs: list[dict[str, dict[str, Any]]], text: str) -> None:
    for run in runs:
        series, scaled, model = run["series"], run["scaled"], run["model"]
        if series.get("HighPassCutoff") and series["InputData"]["Kind"] != "XCP-D":
            assert f"full width of {series['HighPassCutoff']:g} s" in text
        if scaled.get("Resampling"):
            assert f"{scaled['SourceRepetitionTime']:g}" in text
            assert f"{scaled['RepetitionTime']:g} s" in text
        else:
            assert scaled["RepetitionTime"] == scaled["SourceRepetitionTime"]
        if series["InputData"].get("Version"):
            assert "{Kind} {Version}".format(**series["InputData"]) in text
        if run["components"]:
            assert f"{run['components']['SmoothingFWHM']:g} mm" in text
            assert f"random seed: {run['components']['RandomSeed']}" in text
        if model:
            assert f"windows of {model['WindowVolumes']} volumes" in text.lower()
            ratios = run["metrics"]["MaskRatios"]
            assert all(f"{100 * ratio:g}" in text for ratio in ratios)
        for name, version in series["SoftwareVersions"].items():
            assert f"{name} {version}" in text
