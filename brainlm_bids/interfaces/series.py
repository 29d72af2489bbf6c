"""Nipype interfaces for runs without volumes: fMRIPrep's CIFTI, and parcel series made elsewhere.

A file in; what the rest of the graph needs of it out, in the files that `Realign`, `Project` and
`Extract` make of a raw run.
"""

from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits
from numpy.typing import NDArray

from brainlm_bids import resources
from brainlm_bids.bids.timeseries import read_timeseries
from brainlm_bids.errors import UserError
from brainlm_bids.files import reading
from brainlm_bids.image_files import open_image
from brainlm_bids.interfaces import payloads
from brainlm_bids.interfaces.array_interface import ArrayInputSpec, ArrayInterface, errors_about
from brainlm_bids.interfaces.fmriprep import read_confounds
from brainlm_bids.interfaces.functional import save_quality
from brainlm_bids.settings import Settings


class _TakeCiftiInputs(ArrayInputSpec):
    bold = File(exists=True, mandatory=True, desc=".dtseries.nii, 91k")
    confounds = File(exists=True, mandatory=True)
    labels = File(exists=True, mandatory=True, desc="A424.dlabel.nii")
    tr = traits.Float(mandatory=True)
    dummy_scans = traits.Either(None, traits.Int, usedefault=True)
    min_parcel_coverage = traits.Float(mandatory=True)
    max_bad_volumes = traits.Float(Settings.max_bad_volumes, usedefault=True, desc="share")
    parcellations = traits.List(File(exists=True), desc="a `Labelled` each, of further atlases")


class _TakeCiftiOutputs(TraitedSpec):
    parcels = File(desc="(T, 424) array, grand mean 10000, NaN without data")
    confounds = File(desc="a (T,) array per confound")
    coverage = File(desc="a `Coverage`, of grayordinates")
    motion = File(desc="a `Motion`, parameters alone")
    image_quality = File(desc="an `ImageQuality`, of what concerns time")
    voxels = File(desc="`Voxels` for figures")
    others = File(desc="(T, K) array, the series of further atlases")
    others_coverage = traits.List(File, desc="a `Coverage` of each of them")


class TakeCifti(ArrayInterface):
    """Parcel series of fMRIPrep's grayordinates, and those of its confounds that a raw run has."""

    input_spec = _TakeCiftiInputs
    output_spec = _TakeCiftiOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc import steps

        series, labels = load_grayordinates(self.inputs.bold, self.inputs.labels)
        table = read_confounds(self.inputs.confounds, len(series))
        with errors_about(self.inputs.bold):
            run = steps.take_cifti(
                series,
                labels,
                table,
                n_dummy=self.inputs.dummy_scans,
                min_parcel_coverage=self.inputs.min_parcel_coverage,
                max_bad_volumes=self.inputs.max_bad_volumes,
                others=load_labels(self.inputs.parcellations),
            )
        for name in ("parcels", "confounds", "coverage", "motion"):
            self._results[name] = payloads.save(getattr(run, name), folder / name)
        if run.others is not None:
            self._results["others"] = payloads.save(run.others, folder / "others")
            self._results["others_coverage"] = [
                payloads.save(one, folder / f"coverage_{k}")
                for k, one in enumerate(run.others_coverage)
            ]
        displacement = run.confounds.get("framewise_displacement")
        measured = steps.measure_grayordinates(
            series, labels, run.motion, displacement, self.inputs.tr
        )
        self._results |= save_quality(*measured, folder)


def load_labels(parcellations: Any) -> list[tuple[NDArray[np.int64], int]]:
    """Labels (V,) and number of parcels of further atlases on grayordinates, from their files."""
    found = [payloads.load(resources.Labelled, path) for path in parcellations or ()]
    return [(one.labels.astype(np.int64), len(one.index)) for one in found]


def load_grayordinates(bold: str, labels: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Read a series of grayordinates and the atlas on them.

    Parameters
    ----------
    bold
        A `.dtseries.nii`, 91k.
    labels
        A `.dlabel.nii`.

    Returns
    -------
    series
        (T, V) float32.
    labels
        (V,).

    Raises
    ------
    UserError
        If a file is damaged, or the grayordinates of the two differ.
    """
    with reading(Path(bold)):
        image = open_image(bold)
        series = np.asarray(image.dataobj, dtype=np.float32)
    atlas = open_image(labels)
    if image.header.get_axis(1) != atlas.header.get_axis(1):
        raise UserError(
            f"{bold}: its grayordinates are not those of {labels}; 91k is needed (fMRIPrep's "
            "--cifti-output 91k)"
        )
    return series, np.asarray(atlas.dataobj).ravel().astype(np.int64)


class _TakeTimeseriesInputs(ArrayInputSpec):
    timeseries = File(exists=True, mandatory=True)
    max_bad_volumes = traits.Float(Settings.max_bad_volumes, usedefault=True, desc="share")


class _TakeTimeseriesOutputs(TraitedSpec):
    denoised = File(desc="(T, 424) array, as it was given; bad volumes are NaN")
    motion = File(desc="a `Motion`: no volume before the steady state, and which are bad")


class TakeTimeseries(ArrayInterface):
    """A parcel series that was made elsewhere."""

    input_spec = _TakeTimeseriesInputs
    output_spec = _TakeTimeseriesOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc import steps

        series = read_timeseries(Path(self.inputs.timeseries), resources.parcels().names).values
        with errors_about(self.inputs.timeseries):
            given = steps.take_series(series, max_bad_volumes=self.inputs.max_bad_volumes)
        self._results["denoised"] = payloads.save(given.series, folder / "denoised")
        self._results["motion"] = payloads.save(given.motion, folder / "motion")
