"""Warnings of the reports."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from brainlm_bids.parcels.scaling import UKB_SD_DEMEANED, UKB_SD_ROBUST
from brainlm_bids.report.run_facts import far_off
from brainlm_bids.report.values import Row, as_float, as_list, number

if TYPE_CHECKING:
    from brainlm_bids.report.contents import Run, _Files


@dataclass(frozen=True)
class Warn:
    """A box that cannot be missed. `level` is "danger" (do not interpret) or "warn"."""

    kind: str
    level: str
    text: str


def _scale_ratios(
    denoised: Mapping[str, Any], robust: Mapping[str, Any]
) -> list[tuple[str, float, float]]:
    """What is compared with BrainLM's training data: its name, this run's value, the norm."""
    both = {**denoised, **robust}
    values = (
        ("sd of the parcels", as_float(both.get("StandardDeviationDemeaned")), UKB_SD_DEMEANED),
        ("sd of the scaled series", as_float(both.get("StandardDeviationRobust")), UKB_SD_ROBUST),
    )
    return [(label, value, norm) for label, value, norm in values if value is not None]


def _scale_warnings(denoised: Mapping[str, Any], robust: Mapping[str, Any]) -> list[Warn]:
    return [
        Warn(
            "scale",
            "warn",
            f"The {label} is {number(value)}, {value / norm:.2f} times the {norm:.3g} of the UK "
            "Biobank runs that BrainLM was trained on: it has not seen series of this scale.",
        )
        for label, value, norm in _scale_ratios(denoised, robust)
        if far_off(value, norm)
    ]


_DANGER = re.compile(r"approx|untrained|random|demo|all .*component|every .*component", re.I)


def stated(sidecars: Iterable[Mapping[str, Any]]) -> list[Warn]:
    """The warnings that the sidecars carry, each once."""
    texts = dict.fromkeys(
        str(text) for sidecar in sidecars for text in as_list(sidecar.get("Warnings"))
    )
    return [Warn("stated", "danger" if _DANGER.search(text) else "warn", text) for text in texts]


def _missing(warnings: list[Warn], pattern: str) -> bool:
    return not any(re.search(pattern, warning.text, re.I) for warning in warnings)


def run_warnings(
    files: _Files,
    denoised: Mapping[str, Any],
    robust: Mapping[str, Any],
    aroma: list[Row],
    run: Run,
    has_t1w: bool,
) -> list[Warn]:
    found = stated([files.json("confounds", "timeseries"), denoised, robust])
    approximate = any("approx" in space.lower() for space in files.spaces)
    if approximate and _missing(found, "approx"):
        text = (
            "Approximate atlas: the parcels are the nearest published centroids, not A424 itself. "
            "They agree with A424 in about half of the voxels; do not compare these numbers with "
            "others, nor interpret the model's output."
        )
        found.append(Warn("atlas", "danger", text))
    noise = [row for row in aroma if row.get("classification") == "noise"]
    if aroma and len(noise) == len(aroma) and _missing(found, "all .*component|every .*component"):
        text = f"All {len(aroma)} components were classified as noise: check this run by eye."
        found.append(Warn("components", "danger", text))
    if not has_t1w and "Registration" in run.figures and _missing(found, "T1w"):
        text = (
            "No T1w image: the BOLD reference was registered straight to the template. "
            "Look at the alignment before trusting the parcels."
        )
        found.append(Warn("t1w", "warn", text))
    if run.filled and _missing(found, "filled"):
        count = len(run.filled)
        text = (
            f"{count} parcel{'s have' if count > 1 else ' has'} no data in this run; the model "
            "was given the median instead."
        )
        found.append(Warn("filled", "warn", text))
    found += _scale_warnings(denoised, robust)
    return sorted(found, key=lambda warning: warning.level)


def model_warnings(label: str, about: Mapping[str, Any], sidecar: Mapping[str, Any]) -> list[Warn]:
    found = stated([sidecar])
    if about.get("untrained") and _missing(found, "untrained|random"):
        text = (
            f"Untrained model: {label} has random weights. Its output is a control; it says "
            "nothing about this brain that the input series do not."
        )
        found.append(Warn("untrained", "danger", text))
    padded = sidecar.get("PaddedVolumes") or sidecar.get("Padded")
    if padded and _missing(found, "pad"):
        amount = "" if padded is True else f" by {padded} volumes"
        text = f"Short run: it was padded{amount} to fill one window of the model."
        found.append(Warn("padded", "warn", text))
    return sorted(found, key=lambda warning: warning.level)
