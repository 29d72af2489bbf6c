"""Nipype interfaces of the group level before the models: statistics over the cohort, and scaling.

Each loads, calls a function of `cohort`, and writes. `naming` names the files of a recording, or of
the group.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits
from numpy.typing import NDArray

from brainlm_bids import files, resources
from brainlm_bids.bids import outputs
from brainlm_bids.bids.context import from_plain
from brainlm_bids.bids.names import parse
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.errors import UserError
from brainlm_bids.interfaces.array_interface import ArrayInputSpec, ArrayInterface
from brainlm_bids.interfaces.context import Record
from brainlm_bids.interfaces.derivatives.run import interpolated_volumes
from brainlm_bids.interfaces.steady import steady_series
from brainlm_bids.notices import Kind, Notice, from_json, to_json
from brainlm_bids.parcels import scaling

Plain = dict[str, Any]


# --- statistics over the cohort --------------------------------------------------------------


class _CollectInputs(ArrayInputSpec):
    namings = traits.List(Record(Naming), mandatory=True)
    model_tr = traits.Float(mandatory=True)
    first = traits.Either(None, traits.Int, desc="volumes of each recording that count; None: all")


class _CollectOutputs(TraitedSpec):
    store = File(desc="(424, N) float32: demeaned volumes side by side")
    report = File(desc="stem -> volumes, or what is wrong")


class CollectSeries(ArrayInterface):
    """Demeaned series of some recordings, by parcel; damaged ones are reported and left out."""

    input_spec = _CollectInputs
    output_spec = _CollectOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.cohort.statistics import demeaned

        parts, report = [], {}
        for values in self.inputs.namings:
            naming = from_plain(Naming, values)
            try:
                made, _ = steady_series(naming, self.inputs.model_tr)
                series = made.series if made.measured is None else made.series[made.measured]
                parts.append(demeaned(series, self.inputs.first or None))
            except (OSError, ValueError, KeyError, TypeError, UserError) as error:
                reason = str(error) or type(error).__name__
                report[naming.stem] = {"problem": f"{naming.path('denoised').name}: {reason}"}
                continue
            report[naming.stem] = {"n_volumes": parts[-1].shape[1]}
        none = np.empty((len(resources.parcels().names), 0), dtype=np.float32)
        store = folder / "store.npy"
        np.save(store, np.concatenate([none, *parts], axis=1))
        self._results["store"] = str(store)
        self._results["report"] = str(files.write_json(folder / "report.json", report))


class StoreFile:
    """Rows of a saved (P, N) array, read on demand and not kept in memory."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __len__(self) -> int:
        return len(np.load(self._path, mmap_mode="r"))

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        # an open mapping would count as memory, with all pages that were ever read
        return np.array(np.load(self._path, mmap_mode="r")[rows])


class _PoolInputs(ArrayInputSpec):
    naming = Record(Naming, mandatory=True)
    stores = traits.List(File(exists=True), mandatory=True)
    reports = traits.List(File(exists=True), mandatory=True)
    sidecar = traits.Dict(mandatory=True, desc="fields that the sidecar begins with")
    configuration = traits.Str(mandatory=True)


class PoolStatistics(ArrayInterface):
    """Median and interquartile range per parcel over the cohort, and their record."""

    input_spec = _PoolInputs
    output_spec = TraitedSpec

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.cohort.statistics import pooled_statistics

        naming = from_plain(Naming, self.inputs.naming)
        report: Plain = {}
        for path in self.inputs.reports:
            report |= files.read_json(Path(path))
        used = {stem: entry["n_volumes"] for stem, entry in report.items() if "n_volumes" in entry}
        if not used:
            raise UserError(f"{naming.output_dir}: no series of the cohort can be read")
        pooled = pooled_statistics([StoreFile(path) for path in self.inputs.stores])
        path = naming.path("scaling")
        names = list(resources.parcels().names)
        stats = scaling.ScalingStats(pooled.median, pooled.iqr)
        scaling.save_stats(path, names, stats)
        subjects = {parse(stem).subject for stem in used}
        values = {
            **self.inputs.sidecar,
            "NumberOfRecordings": len(used),
            "NumberOfSubjects": len(subjects),
            "NumberOfVolumes": sum(used.values()),
            "ParcelsWithoutData": [n for n, k in zip(names, pooled.n_values) if k == 0],
            "Recordings": sorted(used),
            "Unreadable": {
                stem: entry["problem"] for stem, entry in report.items() if "problem" in entry
            },
            "Configuration": self.inputs.configuration,
        }
        sidecar = naming.path("scaling", extension=".json")
        files.write_json(sidecar, naming.sidecar("scaling", values))
        outputs.write_record(
            Path(naming.output_dir),
            naming.stem,
            "scaling",
            self.inputs.configuration,
            [path, sidecar],
        )


# --- recordings under the cohort's statistics ------------------------------------------------


class _ScaleToCohortInputs(ArrayInputSpec):
    naming = Record(Naming, mandatory=True)
    statistics = File(exists=True, mandatory=True)
    description = traits.Str(mandatory=True, desc="of the statistics, for the sidecar")
    model_tr = traits.Float(mandatory=True)
    configuration = traits.Str(mandatory=True)


class _ScaleToCohortOutputs(TraitedSpec):
    robust_tsv = File()


class ScaleToCohort(ArrayInterface):
    """One recording, scaled with the statistics of the cohort."""

    input_spec = _ScaleToCohortInputs
    output_spec = _ScaleToCohortOutputs

    def _compute(self, folder: Path) -> None:
        naming, names = from_plain(Naming, self.inputs.naming), list(resources.parcels().names)
        try:
            sampled, source = steady_series(naming, self.inputs.model_tr)
            # read here, so that a damaged file fails for this recording only
            _, connectivity = files.read_matrix(naming.existing("pearson"))
        except (UserError, ValueError, KeyError) as error:
            raise UserError(f"{naming.stem}: {error}") from error
        if connectivity.shape != (len(names), len(names)):
            raise UserError(f"{naming.existing('pearson').name}: is not 424 × 424")
        stats = scaling.load_stats(Path(self.inputs.statistics), names)
        robust, filled = scaling.scale(sampled.series, stats, sampled.measured)
        tr, source_tr = sampled.tr, float(source["RepetitionTime"])
        kept = robust[:, ~filled]
        made = {
            "Sources": [naming.uri(naming.path("denoised"))],
            **{key: source.get(key) for key in ("Atlas", "Template")},
            "Warnings": to_json(self._warnings(source, kept)),
            "RepetitionTime": tr,
            "SamplingFrequency": 1.0 / tr,
            "StartTime": float(source.get("StartTime", 0.0))
            + (int(source["DummyVolumes"]) + sampled.first) * source_tr,
            "NumberOfVolumes": len(robust),
            "BadVolumes": source.get("BadVolumes", []),
            **interpolated_volumes(sampled.measured),
            "SourceRepetitionTime": source_tr,
            "Scaling": "each parcel: mean removed, minus median, over interquartile range",
            "ScalingStatistics": self.inputs.description,
            "FilledParcels": [names[k] for k in np.flatnonzero(filled)],
            "StandardDeviationRobust": float(kept.std()) if kept.size else None,
            "Configuration": self.inputs.configuration,
        }
        path = files.write_series(naming.path("cohort_robust"), names, robust)
        sidecar = naming.path("cohort_robust", extension=".json")
        files.write_json(sidecar, naming.sidecar("cohort_robust", made))
        outputs.write_record(
            Path(naming.output_dir),
            naming.stem,
            outputs.COHORT_SERIES_STAGE,
            self.inputs.configuration,
            [path, sidecar],
        )
        self._results["robust_tsv"] = str(path)

    def _warnings(self, source: Mapping[str, Any], scaled: NDArray[Any]) -> list[Notice]:
        """Warnings of the series, updated for its present scale."""
        kept = [
            warning
            for warning in from_json(source.get("Warnings"))
            if warning.kind != Kind.SCALED_FAR_OFF
        ]
        spread = float(scaled.std()) if scaled.size else None
        return [*kept, *scaling.scale_warnings(None, spread)]
