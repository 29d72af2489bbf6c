"""The numbers of a run that its report shows, from sidecars and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from brainlm_bids import resources
from brainlm_bids.bids.context import REGISTRATION_FIELDS
from brainlm_bids.bids.distortion import NONE
from brainlm_bids.notices import Kind, from_json
from brainlm_bids.parcels.scaling import UKB_SD_DEMEANED, UKB_SD_ROBUST, far_off
from brainlm_bids.preproc.denoising.confounds import MOTION_OUTLIER
from brainlm_bids.preproc.distortion import risk
from brainlm_bids.preproc.registration import quality
from brainlm_bids.report.measures import static_measures
from brainlm_bids.report.values import Fact, Row, as_float, number

# Key in the sidecar of the denoised series: label in the report
_OPTIONS = {
    "Atlas": "Atlas",
    "Template": "Template",
    "Denoising": "Denoising",
    "HighPassCutoff": "High-pass cut-off (s)",
    "LowPassCutoff": "Low-pass cut-off (s)",
    "Registration": "Registration",
    "ScalingStatistics": "Scaling statistics",
}
# What tells whether a correction helps where the run is displaced: key in the sidecar, label.
_WHERE_DISPLACED = {
    "DisplacedAgreement": "Agreement with the field map where displaced",
    "BoundarySharpness": "Sharpness of the white matter where displaced",
}
# Parcels covered by less than this fraction are listed.
LOW_COVERAGE = 0.5


def acquisition(sidecar: Mapping[str, Any]) -> list[Fact]:
    """Repetition time; numbers of volumes, dummy volumes and bad volumes."""
    tr, volumes = sidecar.get("RepetitionTime"), sidecar.get("NumberOfVolumes")
    facts = []
    if tr is not None:
        facts.append(Fact("Repetition time", f"{number(tr)} s"))
    if volumes is not None:
        length = f"{float(volumes) * float(tr) / 60:.1f} min" if tr is not None else ""
        facts.append(Fact("Volumes", str(volumes), length))
    if sidecar.get("DummyVolumes") is not None:
        facts.append(
            Fact("Dummy volumes", str(sidecar["DummyVolumes"]), "excluded from the series")
        )
    if sidecar.get("Reference") is not None:
        distance = as_float(sidecar.get("ReferenceDistance"))
        note = "" if distance is None else f"{number(distance)} mm from the median of the volumes"
        names = {"sbref": "single-band reference"}
        what = str(sidecar["Reference"])
        facts.append(Fact("Reference", names.get(what, what), note))
    if sidecar.get("SliceTimingCorrected"):
        start = as_float(sidecar.get("StartTime"))
        note = f"volumes stand for {number(start)} s after their beginning" if start else ""
        facts.append(Fact("Slice timing", "corrected", note))
    facts += _echoes(sidecar)
    bad = sidecar.get("BadVolumes")
    if isinstance(bad, list):
        note = "in no fit; interpolated for the model, or cut off" if bad else ""
        facts.append(Fact("Bad volumes", str(len(bad)), note, bool(bad)))
    return facts


def _echoes(sidecar: Mapping[str, Any]) -> list[Fact]:
    times, t2star = sidecar.get("EchoTimes"), as_float(sidecar.get("MedianT2star"))
    if not isinstance(times, list) or not times:
        return []
    shown = ", ".join(number(1000 * float(time), 3) for time in times)
    note = "" if t2star is None else f"T2* of the brain: {number(1000 * t2star, 3)} ms (median)"
    suspect = any(one.kind == Kind.ECHO_TIMES_SUSPECT for one in from_json(sidecar.get("Warnings")))
    facts = [Fact("Echoes combined", f"{len(times)}, at {shown} ms", note, suspect)]
    if sidecar.get("EchoDenoising"):
        counts = [sidecar.get(f"Tedana{name}") for name in ("RejectedComponents", "Components")]
        note = f"{counts[0]} of {counts[1]} components rejected"
        facts.append(Fact("Denoised by", str(sidecar["EchoDenoising"]), note))
    return facts


def motion(sidecar: Mapping[str, Any]) -> list[Fact]:
    """Framewise displacement, largest movements, motion outliers."""
    rows = (
        ("MeanFramewiseDisplacement", "Mean framewise displacement", " mm"),
        ("MaximumTranslation", "Largest translation", " mm"),
        ("MaximumRotation", "Largest rotation", "°"),
    )
    facts = [
        Fact(label, f"{number(sidecar[key], 3)}{unit}")
        for key, label, unit in rows
        if sidecar.get(key) is not None
    ]
    outliers, volumes = sidecar.get("MotionOutliers"), as_float(sidecar.get("NumberOfVolumes"))
    if outliers is not None:
        share = f"{100 * outliers / volumes:.0f} % of the volumes" if volumes else ""
        facts.append(Fact("Motion outliers", str(outliers), share))
    return facts


def image_quality(rows: list[Row]) -> list[Fact]:
    """The image quality that a run has, each number with MRIQC's name for it.

    >>> image_quality([{"tsnr": "52.476", "fber": "n/a"}])
    [Fact(label='Temporal signal-to-noise ratio', value='52.5', note='tsnr', odd=False)]
    """
    row = rows[0] if rows else {}
    found = [(one, as_float(row.get(one.column))) for one in static_measures()]
    return [
        Fact(one.label, one.shown(value, unit=True), one.column)
        for one, value in found
        if one.output == "image_quality" and value is not None
    ]


def counted_outliers(confounds: list[Row]) -> dict[str, int]:
    """Number of motion outliers, by the columns of a table of confounds; none without a table.

    >>> counted_outliers([{"csf": "0.1", "motion_outlier00": "1", "motion_outlier01": "0"}])
    {'MotionOutliers': 2}
    """
    if not confounds:
        return {}
    return {"MotionOutliers": sum(name.startswith(MOTION_OUTLIER) for name in confounds[0])}


def registration(sidecar: Mapping[str, Any]) -> list[Fact]:
    """The numbers by which the registration is judged, each with its limit."""
    numbers = {name: as_float(sidecar.get(field)) for name, field in REGISTRATION_FIELDS.items()}
    normalised = "boldref" if sidecar.get("Coregistration") is None else "T1w"
    facts = [
        Fact(limit.about, limit.shown(value), str(limit), not limit.holds(value))
        for limit, value in quality.judged(quality.Quality(**numbers), normalised)
    ]
    return [*facts, *_lesion(sidecar)]


def _lesion(sidecar: Mapping[str, Any]) -> list[Fact]:
    """The lesion that was left out of the registration, and the parcels that lie in it."""
    volume = as_float(sidecar.get("LesionVolume"))
    if volume is None:
        return []
    damaged = sidecar.get("LesionParcels") or {}
    note = "their series come from damaged tissue" if damaged else ""
    return [
        Fact("lesion that was left out of the registration", f"{volume:.1f} ml", "by its mask"),
        Fact("parcels that lie in the lesion to more than half", str(len(damaged)), note),
    ]


def distortion(sidecar: Mapping[str, Any]) -> list[Fact]:
    """How the distortion was corrected, or why not, and the numbers by which that is judged."""
    correction = sidecar.get("DistortionCorrection")
    if not isinstance(correction, Mapping):
        return []
    reason = str(correction.get("Reason") or "")
    facts = [Fact("Distortion correction", str(correction.get("Method", "unknown")), reason)]
    direction = correction.get("PhaseEncodingDirection")
    if direction is not None:
        readout = as_float(correction.get("TotalReadoutTime"))
        note = "" if readout is None else f"total read-out time {1000 * readout:.4g} ms"
        facts.append(Fact("Phase encoding", str(direction), note))
    largest = as_float(correction.get("LargestDisplacement"))
    if largest is not None:
        facts.append(Fact("Largest displacement", f"{number(largest)} mm", "within the brain"))
    for key, label in _WHERE_DISPLACED.items():
        measured, before, reverse = (
            as_float(correction.get(f"{key}{kind}")) for kind in ("", "Uncorrected", "Reversed")
        )
        if measured is not None and before is not None and reverse is not None:
            note = f"{number(before)} without the correction, {number(reverse)} with its reverse"
            odd = measured < max(before, reverse)
            facts.append(Fact(label, number(measured), note, odd))
    return facts


def parcels_at_risk(sidecar: Mapping[str, Any]) -> list[str]:
    """The parcels that are probably displaced: none where that was corrected, or is not known.

    >>> parcels_at_risk({"DistortionCorrection": {"Method": "none"}})
    []
    """
    correction = sidecar.get("DistortionCorrection")
    if not isinstance(correction, Mapping) or correction.get("Method") != NONE:
        return []
    if correction.get("PhaseEncodingDirection") is None:
        return []
    table = resources.parcels()
    return [table.names[k] for k in np.flatnonzero(risk.parcels_at_risk(table.xyz))]


def components(table: list[Row]) -> list[Fact]:
    """How many components ICA-AROMA classified as noise."""
    if not table:
        return []
    noise = [row for row in table if row.get("classification") == "noise"]
    variance = sum(as_float(row.get("variance")) or 0.0 for row in noise)
    total = sum(as_float(row.get("variance")) or 0.0 for row in table)
    note = f"{100 * variance / total:.0f} % of the components’ variance" if total > 0 else ""
    odd = len(noise) in {0, len(table)}
    return [Fact("Noise components", f"{len(noise)} of {len(table)}", note, odd)]


def parcels(coverage: list[Row], filled: list[str] | None, minimum: float | None) -> list[Fact]:
    """How many parcels the run covers, and how many have no series (None: unknown).

    minimum: the covered fraction below which a parcel has no series.
    """
    facts = []
    if coverage:
        fractions = [as_float(row.get("fraction")) or 0.0 for row in coverage]
        covered = sum(fraction > 0 for fraction in fractions)
        low = sum(0 < fraction < LOW_COVERAGE for fraction in fractions)
        note = f"{low} of them by less than half" if low else "all by at least half"
        value = f"{covered} of {len(fractions)}"
        facts.append(Fact("Parcels covered", value, note, covered < len(fractions)))
        if minimum:
            hardly = sum(0 < fraction < minimum for fraction in fractions)
            note = f"covered by less than {100 * minimum:g} %: n/a in the series"
            facts.append(Fact("Parcels hardly covered", str(hardly), note, hardly > 0))
    if filled is not None:
        note = "replaced by the median for the model"
        facts.append(Fact("Parcels without data", str(len(filled)), note, bool(filled)))
    return facts


def low_coverage(coverage: list[Row]) -> list[tuple[str, str]]:
    """Name and covered fraction of the parcels with low coverage, the lowest first."""
    rows = [(as_float(row.get("fraction")) or 0.0, row) for row in coverage]
    low = sorted((pair for pair in rows if pair[0] < LOW_COVERAGE), key=lambda pair: pair[0])
    return [(row.get("name") or row.get("index") or "?", f"{part:.2f}") for part, row in low]


def scale(sidecar: Mapping[str, Any]) -> list[Fact]:
    """Standard deviations of the series, compared with BrainLM's training data."""
    rows = (
        ("StandardDeviationDemeaned", "SD of the parcel series", UKB_SD_DEMEANED),
        ("StandardDeviationRobust", "SD of the scaled series", UKB_SD_ROBUST),
    )
    facts = []
    for key, label, reference in rows:
        value = as_float(sidecar.get(key))
        if value is not None:
            note = f"{value / reference:.2f} × that of BrainLM’s training data ({reference:.3g})"
            facts.append(Fact(label, number(value), note, far_off(value, reference)))
    return facts


def options(sidecar: Mapping[str, Any]) -> list[Fact]:
    """Atlas, template and settings of the preprocessing."""
    facts = []
    for key, label in _OPTIONS.items():
        value = sidecar.get(key)
        if isinstance(value, dict):
            value = value.get("Name")
        if isinstance(value, str | int | float) and str(value):
            facts.append(Fact(label, str(value)))
    return facts
