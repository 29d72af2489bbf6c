"""The numbers of one recording, by the keys of `data/measures.toml`, from its sidecars and tables.

A file that is missing or broken leaves its numbers out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from brainlm_bids.bids.outputs import Naming
from brainlm_bids.bids.quality import bad_volumes, n_volumes
from brainlm_bids.bids.recordings import Recording
from brainlm_bids.report.measures import reconstruction_key, static_measures
from brainlm_bids.report.values import Row, as_float, read_json, read_tsv

# Digits that are kept, here and in tables: whoever reads a number from a table has the same one
DIGITS = 7


class RunFiles:
    """Sidecars and tables of one recording, each read once.

    Parameters
    ----------
    naming
        Of its files.
    recording
        With its coverage, where that is known.
    """

    def __init__(self, naming: Naming, recording: Recording) -> None:
        self.naming = naming
        self.coverage = recording.coverage
        self._sidecars: dict[str, dict[str, Any]] = {}
        self._rows: dict[str, list[Row]] = {}

    def sidecar(self, key: str) -> dict[str, Any]:
        """The sidecar of an output; empty if it is missing or broken."""
        if key not in self._sidecars:
            self._sidecars[key] = read_json(self.naming.existing(key, extension=".json"))
        return self._sidecars[key]

    def first_row(self, key: str) -> Row:
        """The first row of a table; empty if it is missing or broken."""
        if key not in self._rows:
            self._rows[key] = read_tsv(self.naming.existing(key))
        return self._rows[key][0] if self._rows[key] else {}


def measured(files: RunFiles, models: Iterable[tuple[str, Path]] = ()) -> dict[str, float]:
    """The numbers of a recording.

    Parameters
    ----------
    files
        Of the recording.
    models
        Label of each model with its table of reconstruction metrics.

    Returns
    -------
    dict
        Key of the measure -> number. What is not known is left out.
    """
    found: dict[str, object] = {}
    for one in static_measures():
        if one.field:
            found[one.key] = files.sidecar(one.output).get(one.field)
        elif one.column:
            found[one.key] = files.first_row(one.output).get(one.column)
        else:
            found[one.key] = _COMPUTED[one.key](files)
    for model, path in models:
        found |= reconstructed(model, read_tsv(path))
    return {
        key: _rounded(number)
        for key, value in found.items()
        if (number := as_float(value)) is not None
    }


def reconstructed(model: str, rows: list[Row]) -> dict[str, object]:
    """R² of a model and of the baselines, at the mask ratio that was given first.

    Parameters
    ----------
    model
        Its label.
    rows
        Of its table of reconstruction metrics.

    Examples
    --------
    >>> reconstructed("m", [{"mask_ratio": "0.2", "predictor": "model", "r2": "0.5"}])
    {'r2_m_masked20': '0.5'}
    """
    ratio = as_float(rows[0].get("mask_ratio")) if rows else None
    if ratio is None:
        return {}
    return {
        reconstruction_key(model, ratio, row.get("predictor", "")): row.get("r2")
        for row in rows
        if as_float(row.get("mask_ratio")) == ratio and row.get("predictor")
    }


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


# --- what no file holds as such --------------------------------------------------------------


def _motion_outliers(files: RunFiles) -> float | None:
    sidecar = files.sidecar("denoised")
    return _percent(sidecar.get("MotionOutliers"), sidecar.get("NumberOfVolumes"))


def _bad_volumes(files: RunFiles) -> float | None:
    return bad_volumes(files.sidecar("denoised"))


def _n_volumes(files: RunFiles) -> float | None:
    return n_volumes(files.sidecar("denoised"))


def _coverage(files: RunFiles) -> float | None:
    return files.coverage


def _parcels_without_data(files: RunFiles) -> float | None:
    missing = files.sidecar("denoised").get("MissingParcels")
    # a list in the sidecars of earlier versions
    return float(len(missing)) if isinstance(missing, list | Mapping) else None


def _noise_components(files: RunFiles) -> float | None:
    sidecar = files.sidecar("aroma_metrics")
    return _percent(sidecar.get("NumberOfNoiseComponents"), sidecar.get("NumberOfComponents"))


def _percent(part: object, whole: object) -> float | None:
    share, of = as_float(part), as_float(whole)
    return None if share is None or not of else 100.0 * share / of


_COMPUTED: dict[str, Callable[[RunFiles], float | None]] = {
    "motion_outliers": _motion_outliers,
    "bad_volumes": _bad_volumes,
    "n_volumes": _n_volumes,
    "coverage": _coverage,
    "parcels_without_data": _parcels_without_data,
    "noise_components": _noise_components,
}
