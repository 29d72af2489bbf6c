"""The tables of a run: series, confounds, components, coverage, and their sidecars."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits
from numpy.typing import NDArray

from brainlm_bids import files, resources
from brainlm_bids.bids.context import RAW, REGISTRATION_FIELDS, RunContext, from_plain
from brainlm_bids.interfaces import payloads
from brainlm_bids.interfaces.array_interface import ArrayInterface
from brainlm_bids.interfaces.derivatives.distortion import (
    distortion_fields,
    distortion_warnings,
    write_field,
)
from brainlm_bids.interfaces.derivatives.echoes import echo_fields, echo_warnings
from brainlm_bids.interfaces.derivatives.image_quality import write_quality
from brainlm_bids.interfaces.derivatives.parcellations import ParcelTable, coverage_columns
from brainlm_bids.interfaces.derivatives.run import (
    AROMA_FEATURES,
    FunctionalInputs,
    bad_volumes,
    how_it_was_made,
    interpolated_volumes,
    reference_fields,
    reference_warnings,
    regressed_confounds,
    summarised,
    unusable_warnings,
    used,
)
from brainlm_bids.notices import Kind, notice, to_json
from brainlm_bids.parcels.operator import Coverage
from brainlm_bids.parcels.sampling import RESAMPLING
from brainlm_bids.parcels.scaling import (
    UKB_SD_DEMEANED,
    UKB_SD_ROBUST,
    filled_warnings,
    scale_warnings,
)
from brainlm_bids.parcels.steps import Scaled
from brainlm_bids.preproc.registration.lesion import Lesion, damaged_parcels, lesion_notices
from brainlm_bids.preproc.registration.quality import Quality, registration_warnings
from brainlm_bids.preproc.registration.transforms import ItkTransform

if TYPE_CHECKING:
    from brainlm_bids.preproc.steps import Components, Decisions

LESION_PARCELS = "LesionParcels"  # a field about parcels of A424
LOG = logging.getLogger("brainlm_bids")


class _FunctionalOutputs(TraitedSpec):
    robust_tsv = File()
    written = traits.List(traits.Str)


class WriteFunctional(ArrayInterface):
    """Every table of a run, each with a sidecar that records how it was made.

    If the tables of A424 are complete already, those of further parcellations alone are written.
    """

    input_spec = FunctionalInputs
    output_spec = _FunctionalOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc import steps

        self._motion = payloads.load(steps.Motion, self.inputs.motion)
        self._context = used(from_plain(RunContext, self.inputs.context), self._motion)
        self._naming = self._context.naming
        self._written: list[Path] = []
        self._n_dummy = self._motion.n_dummy
        self._warnings = list(self._context.warnings)
        self._quality = self._registration()
        if self.inputs.coregistration == "mutual information":
            text = (
                "The boundary of white matter is not clear in the BOLD reference: it was "
                "registered to the T1w image by mutual information, which is less accurate."
            )
            self._warnings.append(notice(Kind.UNCLEAR_BOUNDARY, text))
        self._lesion = self._lesion_fields()
        self._warnings += unusable_warnings(self._motion.n_unusable)
        self._echoes = None
        if self.inputs.combination:
            self._echoes = payloads.load(steps.EchoSummary, self.inputs.combination)
        for warning in echo_warnings(self._echoes):
            LOG.warning("%s: %s", self._naming.stem, warning)
            self._warnings.append(warning)
        self._warnings += reference_warnings(self._naming.stem, self._motion)
        self._warnings += distortion_warnings(self._context.distortion, self.inputs)
        self._check_volumes()
        self._mode = self._context.settings.denoise
        self._summary = summarised(self.inputs)
        components, decisions = self._components()
        if components is not None and decisions is not None:
            self._check_components(components, decisions)
        self._write_parcellations()
        if self._context.with_a424:
            self._write_all(components, decisions)
        self._results["robust_tsv"] = str(self._naming.path("robust"))
        self._results["written"] = [str(path) for path in self._written]

    def _write_all(self, components: "Components | None", decisions: "Decisions | None") -> None:
        """The tables of the run itself and those of A424."""
        self._write_transforms()
        self._written += write_field(self._context, self.inputs)
        if components is not None and decisions is not None:
            self._write_components(components, decisions)
        if self.inputs.confounds:
            self._write_confounds()
        self._write_quality()
        if self.inputs.coverage:
            self._write_coverage()
        self._write_series()

    def _write_parcellations(self) -> None:
        """The tables of further parcellations, whose series lie one after another."""
        if not self._context.parcellations:
            return
        series, first = payloads.load(np.ndarray, self.inputs.others_denoised), 0
        files_of = zip(self._context.parcellations, self.inputs.others_coverage, strict=True)
        for info, file in files_of:
            coverage = payloads.load(Coverage, file)
            last = first + len(coverage.fraction)
            table = ParcelTable(self._context, info, coverage, series[:, first:last])
            table.write(self._n_dummy, self._warnings, self._made)
            first = last

    def _registration(self) -> Quality:
        """What is known of the run's way into template space; a warning if it looks wrong."""
        quality = Quality()
        if self.inputs.quality:
            quality = payloads.load(Quality, self.inputs.quality)
        if self.inputs.t1w_quality:
            of_t1w = payloads.load(Quality, self.inputs.t1w_quality)
            names = ("dice", "edge", "correlation")
            quality = replace(quality, **{name: getattr(of_t1w, name) for name in names})
        normalised = "T1w" if self.inputs.matrix else "boldref"
        suspect = registration_warnings(quality, normalised)
        for warning in suspect:
            LOG.warning("%s: %s", self._naming.stem, warning)
        self._warnings += suspect
        return quality

    def _lesion_fields(self) -> dict[str, Any]:
        """What is known of the lesion of the T1w image; warnings about it."""
        if not self.inputs.lesion_found:
            return {}
        found = payloads.load(Lesion, self.inputs.lesion_found)
        self._warnings += lesion_notices(found)
        shares = payloads.load(Coverage, self.inputs.coverage).in_lesion
        if found.problem or shares is None:
            return {}
        damaged, warnings = damaged_parcels(shares, resources.parcels().names)
        for warning in warnings:
            LOG.warning("%s: %s", self._naming.stem, warning)
        self._warnings += warnings
        return {**found.sidecar(), LESION_PARCELS: damaged}

    def _check_volumes(self) -> None:
        """Warn about bad volumes."""
        from brainlm_bids.preproc.denoising.volumes import described

        reasons = self._motion.reasons
        if reasons is None:
            return
        text = (
            f"{int((reasons != '').sum())} of {len(reasons)} volumes cannot be used "
            f"({described(reasons)}; the first volume is 0). They take no part in any fit; those "
            "at the start and at the end are left out, the others are interpolated for the model."
        )
        self._warnings.append(notice(Kind.BAD_VOLUMES, text))
        LOG.warning("%s: %s", self._naming.stem, text)

    def _components(self) -> "tuple[Components | None, Decisions | None]":
        from brainlm_bids.preproc import steps

        if not self.inputs.components:
            return None, None
        return (
            payloads.load(steps.Components, self.inputs.components),
            payloads.load(steps.Decisions, self.inputs.decisions),
        )

    def _check_components(self, components: "Components", decisions: "Decisions") -> None:
        noise, n_starts, warnings = decisions.noise, components.n_starts, []
        if self._mode in ("nonaggr", "aggr") and noise.all():
            self._mode = "none"
            text = (
                f"All {noise.size} components were classified as noise. None was removed, so the "
                "run is not denoised."
            )
            warnings.append(notice(Kind.ALL_COMPONENTS_NOISE, text))
        if not components.converged:
            text = f"The ICA did not converge in {n_starts} starts; the best result was kept."
            warnings.append(notice(Kind.ICA_NOT_CONVERGED, text))
        elif n_starts > 1:
            LOG.warning("%s: the ICA converged in start %d only", self._naming.stem, n_starts)
        for warning in warnings:
            LOG.warning("%s: %s", self._naming.stem, warning)
        self._warnings += warnings

    def _check_series(self, robust: Scaled) -> None:
        """Warn about parcels without data, and about a scale unlike the training data."""
        minimum = self._context.settings.min_parcel_coverage
        self._warnings += filled_warnings(robust.filled, self._fractions(), minimum)
        self._warnings += scale_warnings(self._summary.demeaned_sd, self._summary.robust_sd)

    def _table(self, key: str, names: list[str], columns: Any, **values: Any) -> None:
        path = self._naming.path(key)
        self._written.append(files.write_tsv(path, names, columns))
        self._sidecar(key, values)

    def _sidecar(self, key: str, values: dict[str, Any]) -> None:
        path = self._naming.path(key, extension=".json")
        self._written.append(files.write_json(path, self._naming.sidecar(key, values)))

    def _write_transforms(self) -> None:
        values = {"Sources": self._context.sources, **self._quality_fields()}
        if self.inputs.matrix:
            path = self._naming.path("boldref_to_t1w")
            matrix = payloads.load(np.ndarray, self.inputs.matrix)
            text = ItkTransform.from_matrix(matrix).content.decode()
            self._written.append(files.write_text(path, text))
            self._sidecar("boldref_to_t1w", values)
        elif self.inputs.transform:
            path = self._naming.path("boldref_to_template")
            with files.atomically(path) as temporary:
                shutil.copyfile(self.inputs.transform, temporary)
            self._written.append(path)
            self._sidecar("boldref_to_template", values)

    def _write_confounds(self) -> None:
        table = self._summary.confounds
        self._table(
            "confounds",
            list(table),
            [column.tolist() for column in table.values()],
            Sources=self._context.sources,
            CentreOfRotation=self._motion.centre,
            TranslationUnits="mm",
            RotationUnits="rad",
            **self._acquisition(),
            **self._motion_summary(),
        )

    def _acquisition(self) -> dict[str, Any]:
        return {
            "RepetitionTime": self._context.tr,
            "NumberOfVolumes": len(payloads.load(np.ndarray, self.inputs.denoised)),
            "DummyVolumes": self._n_dummy,
            **bad_volumes(self._motion),
            "SliceTimingCorrected": self._context.slice_timing_corrected,
            "StartTime": self._context.start,
            "DistortionCorrection": distortion_fields(self._context.distortion, self.inputs),
            **echo_fields(self._context.echo_times, self._echoes),
            **(reference_fields(self._motion) if self._context.input_data.kind == RAW else {}),
            "Registration": self._context.registration,
            "Coregistration": self.inputs.coregistration or None,
            "BrainMask": self.inputs.mask_source or None,
            "Normalization": self._context.settings.normalization,
            **self._quality_fields(),
            "InterpolatedShare": self._motion.filled,
            "MotionEstimationDevice": self._motion.device,
            "NonFiniteVoxels": self._motion.n_unusable or None,
        }

    def _quality_fields(self) -> dict[str, float]:
        numbers = {
            field: getattr(self._quality, name) for name, field in REGISTRATION_FIELDS.items()
        }
        return {field: number for field, number in numbers.items() if number is not None}

    def _motion_summary(self) -> dict[str, float]:
        movement = self._summary.movement
        if movement is None:
            return {}
        return {
            "MeanFramewiseDisplacement": movement.mean_fd,
            "MaximumTranslation": movement.translation,
            "MaximumRotation": movement.rotation,
            "MotionOutliers": movement.n_outliers,
        }

    def _write_quality(self) -> None:
        """The image quality, and what was done to the images that it is measured on."""
        made = {
            "Sources": self._context.sources,
            "BrainMask": self.inputs.mask_source or None,
            "SliceTimingCorrected": self._context.slice_timing_corrected,
            **echo_fields(self._context.echo_times, self._echoes),
        }
        self._written += write_quality(self._context, self.inputs.image_quality, made)

    def _write_components(self, components: "Components", decisions: "Decisions") -> None:
        from brainlm_bids.preproc.steps.denoising import SMOOTHING_FWHM_MM

        names = [f"ic_{k + 1:02d}" for k in range(components.mixing.shape[1])]
        made = {
            "Sources": self._context.sources,
            "NumberOfComponents": len(names),
            "NumberOfNoiseComponents": int(decisions.noise.sum()),
            "SmoothingFWHM": SMOOTHING_FWHM_MM,
            "RandomSeed": self._context.settings.random_seed,
            "Converged": components.converged,
            "Iterations": components.n_iter,
            "Starts": components.n_starts,
        }
        if self._summary.mixing is not None:
            self._table("aroma_mixing", names, self._summary.mixing.T.tolist(), **made)
        labels = ["noise" if bad else "signal" for bad in decisions.noise]
        features = [getattr(decisions, name).tolist() for name in AROMA_FEATURES]
        header = ["component", *AROMA_FEATURES, "classification", "reason"]
        columns = [names, *features, labels, decisions.reason.tolist()]
        self._table("aroma_metrics", header, columns, **made)

    def _write_coverage(self) -> None:
        coverage, parcels = payloads.load(Coverage, self.inputs.coverage), resources.parcels()
        header, columns = coverage_columns(coverage, parcels.index, parcels.names)
        self._table("coverage", header, columns, Sources=self._context.sources, **self._spaces())

    def _fractions(self) -> NDArray[np.float64]:
        """Covered fraction of each parcel; NaN where it is not known."""
        if not self.inputs.coverage:
            return np.full(len(resources.parcels().names), np.nan)
        return payloads.load(Coverage, self.inputs.coverage).fraction

    def _spaces(self) -> dict[str, Any]:
        return self._context.spaces()

    def _write_series(self) -> None:
        names = list(resources.parcels().names)
        denoised = payloads.load(np.ndarray, self.inputs.denoised)
        robust = payloads.load(Scaled, self.inputs.robust)
        self._check_series(robust)
        missing = np.flatnonzero(self._summary.missing)
        made = {
            **self._made(
                self._spaces(),
                self._summary.demeaned_sd,
                {names[k]: self._fractions()[k] for k in missing},
            ),
            **self._lesion,
            "Configuration": self._context.configuration,
            "Warnings": to_json(self._warnings),
        }
        own = {"Sources": self._context.sources, **self._context.input_data.about_series()}
        self._table("denoised", names, denoised.T.tolist(), **own, **made)
        if self.inputs.parcels:
            self._write_parcels(names, denoised)
        derived = {"Sources": [self._naming.uri(self._naming.path("denoised"))]}
        path = self._naming.path("pearson")
        self._written.append(files.write_matrix(path, names, self._summary.connectivity))
        self._sidecar("pearson", {**derived, **self._spaces()})
        self._write_robust(names, robust, {**made, **derived})

    def _made(
        self,
        spaces: dict[str, Any],
        demeaned_sd: float | None,
        missing: dict[str, float],
    ) -> dict[str, Any]:
        """How a denoised series was made, of any atlas."""
        settings = self._context.settings
        lesion = {key: value for key, value in self._lesion.items() if key != LESION_PARCELS}
        return {
            **self._acquisition(),
            **self._motion_summary(),
            **spaces,
            "SamplingFrequency": 1.0 / self._context.tr,
            "Denoising": self._mode,
            **regressed_confounds(self.inputs, self._n_dummy),
            "HighPassCutoff": settings.high_pass,
            "LowPassCutoff": settings.low_pass,
            "StandardDeviationDemeaned": demeaned_sd,
            "MinimumParcelCoverage": settings.min_parcel_coverage,
            "MissingParcels": missing,
            **lesion,
            **how_it_was_made(self._context),
        }

    def _write_parcels(self, names: list[str], denoised: NDArray[np.float64]) -> None:
        """The series before denoising, where the denoised one has data."""
        parcels = payloads.load(np.ndarray, self.inputs.parcels)
        columns = np.where(np.isnan(denoised), np.nan, parcels).T.tolist()
        values = {**self._acquisition(), **self._spaces()}
        self._table("preproc_series", names, columns, Sources=self._context.sources, **values)

    def _write_robust(self, names: list[str], robust: Scaled, made: dict[str, Any]) -> None:
        series, filled, tr = robust.series, robust.filled, robust.tr
        made |= {
            "RepetitionTime": tr,
            "SamplingFrequency": 1.0 / tr,
            "StartTime": self._context.start + (self._n_dummy + robust.first) * self._context.tr,
            "NumberOfVolumes": len(series),
            **interpolated_volumes(robust.measured),
            "SourceRepetitionTime": self._context.tr,
            "Resampling": RESAMPLING if tr != self._context.tr else None,
            "Scaling": "each parcel: mean removed, minus median, over interquartile range",
            "ScalingStatistics": self._context.scaling_statistics,
            "FilledParcels": _named(names, filled),
            "StandardDeviationRobust": self._summary.robust_sd,
            "ReferenceStandardDeviations": {
                "UKBiobankDemeaned": UKB_SD_DEMEANED,
                "UKBiobankRobust": UKB_SD_ROBUST,
            },
        }
        self._table("robust", names, series.T.tolist(), **made)


def _named(names: list[str], chosen: NDArray[np.bool_]) -> list[str]:
    return [names[k] for k in np.flatnonzero(chosen)]
