"""Nipype interfaces over series that XCP-D denoised and filtered.

They read BOLD and the tables of motion and outliers, and hand on series that are scaled without
further cleaning.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits
from numpy.typing import NDArray

from brainlm_bids import files
from brainlm_bids.bids.xcp_d import CENSORED, without_hash
from brainlm_bids.errors import UserError
from brainlm_bids.interfaces import payloads
from brainlm_bids.interfaces.array_interface import ArrayInputSpec, ArrayInterface, errors_about
from brainlm_bids.interfaces.functional import load_operator
from brainlm_bids.interfaces.images import is_plain, load_image, save_image
from brainlm_bids.interfaces.series import load_grayordinates, load_labels
from brainlm_bids.settings import Settings

if TYPE_CHECKING:
    from brainlm_bids.preproc.steps import Censoring

Columns = dict[str, NDArray[np.float64]]


class _TakeInputs(ArrayInputSpec):
    bold = File(exists=True, mandatory=True, desc="denoised")
    motion_table = File(exists=True, desc="motion parameters of every volume of the scan")
    level = File(exists=True, desc="the preprocessed series that the denoised one was made from")
    outliers = File(exists=True, desc="marks the censored volumes; none where there was no limit")
    tr = traits.Float(mandatory=True)
    n_dummy = traits.Int(0, usedefault=True, desc="volumes of these before the steady state")
    max_bad_volumes = traits.Float(Settings.max_bad_volumes, usedefault=True, desc="share")


class _TakeVolumesInputs(_TakeInputs):
    to_template = File(exists=True, desc="ITK; absent when the BOLD is in the template's space")


class _TakeOutputs(TraitedSpec):
    bold = File(desc="as it came, or a copy that the next steps read alike")
    boldref = File(desc="standard deviation over time")
    brain_mask = File()
    motion = File(desc="a `Motion`")
    censoring = File(desc="a `Censoring`")
    factor = traits.Float(desc="that scales the run to a grand mean of 10000; 1 without a level")
    confounds = File(desc="a (T,) array per confound; nothing where motion is not known")
    image_quality = File(desc="an `ImageQuality`, of motion and sizes")
    transform = File(desc="resamples into template space; none where the BOLD is there")


class TakeDenoised(ArrayInterface):
    """Brain, motion, censored volumes and geometry of a run that XCP-D denoised."""

    input_spec = _TakeVolumesInputs
    output_spec = _TakeOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc import steps

        bold, affine = load_image(self.inputs.bold)
        with errors_about(self.inputs.bold):
            tables = self.inputs.motion_table or "", self.inputs.outliers or ""
            censoring, table = read_tables(*tables, bold.shape[3])
            run = steps.take_denoised(
                bold,
                censoring,
                table,
                n_dummy=self.inputs.n_dummy,
                max_bad_volumes=self.inputs.max_bad_volumes,
            )
        factor = 1.0
        if self.inputs.level:
            with errors_about(self.inputs.level):
                preprocessed, _ = load_image(self.inputs.level)
                factor = steps.level_factor(preprocessed, run.brain_mask, censoring, run.motion)
        path: str = self.inputs.bold
        if not is_plain(path):
            path = save_image(folder / "bold.nii", bold, affine)
        self._results |= {
            "bold": path,
            "boldref": save_image(folder / "boldref.nii.gz", run.deviation, affine),
            "brain_mask": save_image(folder / "brain_mask.nii.gz", run.brain_mask, affine),
            "factor": factor,
            **_save_common(self.inputs, run, censoring, folder, bold.shape[:3], affine),
        }
        if self.inputs.to_template:
            self._results["transform"] = self.inputs.to_template


class _ExtractInputs(ArrayInputSpec):
    bold = File(exists=True, mandatory=True)
    motion = File(exists=True, mandatory=True)
    censoring = File(exists=True, mandatory=True)
    operator = File(exists=True, mandatory=True)
    others_operator = File(exists=True, desc="sparse (K, voxels), of further atlases")
    factor = traits.Float(mandatory=True)


class _ExtractOutputs(TraitedSpec):
    denoised = File(desc="(T, 424) array of all volumes of the scan; bad ones are NaN")
    others_denoised = File(desc="(T, K) array, the series of further atlases")


class ExtractDenoised(ArrayInterface):
    """Parcel series of XCP-D's volumes, with its gaps."""

    input_spec = _ExtractInputs
    output_spec = _ExtractOutputs

    def _compute(self, folder: Path) -> None:
        from scipy.sparse import csr_matrix

        from brainlm_bids.preproc import steps

        series, others = steps.extract_denoised(
            load_image(self.inputs.bold)[0],
            payloads.load(csr_matrix, self.inputs.operator),
            payloads.load(steps.Censoring, self.inputs.censoring),
            payloads.load(steps.Motion, self.inputs.motion),
            self.inputs.factor,
            load_operator(self.inputs.others_operator),
        )
        self._results["denoised"] = payloads.save(series, folder / "denoised")
        if others is not None:
            self._results["others_denoised"] = payloads.save(others, folder / "others_denoised")


class _TakeCiftiInputs(_TakeInputs):
    labels = File(exists=True, mandatory=True, desc="A424.dlabel.nii")
    min_parcel_coverage = traits.Float(mandatory=True)
    parcellations = traits.List(File(exists=True), desc="a `Labelled` each, of further atlases")


class _TakeCiftiOutputs(TraitedSpec):
    denoised = File(desc="(T, 424) array of all volumes of the scan; bad ones are NaN")
    others_denoised = File(desc="(T, K) array, the series of further atlases")
    others_coverage = traits.List(File, desc="a `Coverage` of each of them")
    coverage = File(desc="a `Coverage`, of grayordinates")
    motion = File(desc="a `Motion`")
    confounds = File(desc="a (T,) array per confound; nothing where motion is not known")
    image_quality = File(desc="an `ImageQuality`, of motion and sizes")


class TakeDenoisedCifti(ArrayInterface):
    """Parcel series of XCP-D's grayordinates, with its gaps."""

    input_spec = _TakeCiftiInputs
    output_spec = _TakeCiftiOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc import steps

        series, labels = load_grayordinates(self.inputs.bold, self.inputs.labels)
        preprocessed = None
        if self.inputs.level:
            preprocessed, _ = load_grayordinates(self.inputs.level, self.inputs.labels)
        with errors_about(self.inputs.bold):
            tables = self.inputs.motion_table or "", self.inputs.outliers or ""
            censoring, table = read_tables(*tables, len(series))
            run = steps.take_denoised_cifti(
                series,
                labels,
                censoring,
                table,
                n_dummy=self.inputs.n_dummy,
                min_parcel_coverage=self.inputs.min_parcel_coverage,
                max_bad_volumes=self.inputs.max_bad_volumes,
                preprocessed=preprocessed,
                others=load_labels(self.inputs.parcellations),
            )
        common = _save_common(self.inputs, run, censoring, folder)
        common.pop("censoring")
        self._results |= {
            "denoised": payloads.save(run.series, folder / "denoised"),
            "coverage": payloads.save(run.coverage, folder / "coverage"),
            **common,
        }
        if run.others is not None:
            self._results["others_denoised"] = payloads.save(run.others, folder / "others")
            self._results["others_coverage"] = [
                payloads.save(one, folder / f"coverage_{k}")
                for k, one in enumerate(run.others_coverage)
            ]


def read_tables(
    motion_table: str, outliers: str, n_volumes: int
) -> "tuple[Censoring, Columns | None]":
    """Read where the volumes of a series are in its scan, and the motion of that.

    Parameters
    ----------
    motion_table, outliers
        XCP-D's tables, of which one may be missing (empty).
    n_volumes
        Of the series.

    Returns
    -------
    censoring
        Of all volumes of the scan.
    motion
        Name of a column to its values (T,); None without a table.

    Raises
    ------
    UserError
        If a table is damaged, or of another run than the series.
    """
    from brainlm_bids.preproc import steps

    motion = _read(motion_table) if motion_table else None
    censored, lengths = None, []
    if outliers:
        table = _read(outliers)
        if CENSORED not in table:
            raise UserError(f"{outliers}: there is no column {CENSORED}")
        censored = table[CENSORED] != 0
        lengths.append(len(censored))
    if motion:
        lengths.append(len(next(iter(motion.values()))))
    if len(set(lengths)) > 1:
        raise UserError(f"{outliers}: {lengths[0]} rows, the table of motion has {lengths[1]}")
    return steps.find_gaps(n_volumes, lengths[0] if lengths else 0, censored), motion


def _read(path: str) -> Columns:
    names, values = files.read_tsv(Path(path))
    return dict(zip(map(without_hash, names), values.T, strict=True))


def _save_common(
    inputs: Any,
    run: Any,
    censoring: "Censoring",
    folder: Path,
    shape: tuple[int, ...] = (),
    affine: NDArray[np.float64] | None = None,
) -> dict[str, str]:
    """Store what volumes and grayordinates have in common, by the names of outputs."""
    from brainlm_bids.preproc import steps

    motion = run.motion
    saved = {
        "motion": payloads.save(motion, folder / "motion"),
        "censoring": payloads.save(censoring, folder / "censoring"),
    }
    if run.confounds:
        saved["confounds"] = payloads.save(run.confounds, folder / "confounds")
    displacement = run.confounds.get("framewise_displacement")
    steady = np.arange(len(censoring.present)) >= motion.n_dummy
    n_good = int((steady if motion.good is None else steady & motion.good).sum())
    quality = steps.measure_denoised(displacement, motion, n_good, inputs.tr, shape, affine)
    saved["image_quality"] = payloads.save(quality, folder / "image_quality")
    return saved
