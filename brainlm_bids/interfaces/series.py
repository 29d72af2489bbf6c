"""Nipype interfaces for runs without volumes: fMRIPrep's CIFTI, and parcel series that others made.

What comes in: a file. What goes out: what the rest of the graph needs of it, in the files that
`Realign`, `Project` and `Extract` make of a raw run.
"""

from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits

from brainlm_bids import resources
from brainlm_bids.bids.timeseries import read_timeseries
from brainlm_bids.errors import UserError
from brainlm_bids.interfaces.array_interface import ArrayInputSpec, ArrayInterface
from brainlm_bids.interfaces.fmriprep import count_non_steady, motion_of, read_confounds


class _TakeCiftiInputs(ArrayInputSpec):
    bold = File(exists=True, mandatory=True, desc=".dtseries.nii, 91k")
    confounds = File(exists=True, mandatory=True)
    labels = File(exists=True, mandatory=True, desc="A424.dlabel.nii")
    dummy_scans = traits.Either(None, traits.Int, usedefault=True)


class _TakeCiftiOutputs(TraitedSpec):
    parcels = File(desc="(T, 424) npy, grand mean 10000, NaN without data")
    confounds = File(desc="npz, a (T,) array per confound")
    coverage = File(desc="n_voxels, n_covered, fraction (424,), of grayordinates")
    motion = File(desc="parameters (T, 6), n_dummy")


class TakeCifti(ArrayInterface):
    """Parcel series of fMRIPrep's grayordinates; the confounds are fMRIPrep's own."""

    input_spec = _TakeCiftiInputs
    output_spec = _TakeCiftiOutputs

    def _compute(self, folder: Path) -> None:
        import nibabel as nb

        from brainlm_bids.parcels import operator as parcellation
        from brainlm_bids.preproc.denoising import temporal
        from brainlm_bids.preproc.denoising.fmriprep import known_confounds

        bold: Any = nb.load(self.inputs.bold)
        atlas: Any = nb.load(self.inputs.labels)
        if bold.header.get_axis(1) != atlas.header.get_axis(1):
            raise UserError(
                f"{self.inputs.bold}: its grayordinates are not those of {self.inputs.labels}; "
                "91k is needed (fMRIPrep's --cifti-output 91k)"
            )
        series = np.asarray(bold.dataobj, dtype=np.float32)  # (T, V)
        labels = np.asarray(atlas.dataobj).ravel().astype(np.int64)
        table = read_confounds(Path(self.inputs.confounds), len(series))
        n_dummy = count_non_steady(
            table, len(series), self.inputs.dummy_scans, Path(self.inputs.bold).name
        )
        covered = np.ptp(series[n_dummy:], axis=0) > 0
        factor = temporal.grand_mean_factor(series[n_dummy:], covered)
        parcels, coverage = parcellation.label_means(series, labels, covered)
        path = folder / "parcels.npy"
        np.save(path, parcels * factor)
        self._results["parcels"] = str(path)
        self._save(folder, "confounds", **known_confounds(table))
        self._save(
            folder,
            "coverage",
            n_voxels=coverage.n_voxels,
            n_covered=coverage.n_covered,
            fraction=coverage.fraction,
        )
        parameters = motion_of(table, self.inputs.confounds)
        self._save(folder, "motion", parameters=parameters, n_dummy=n_dummy)


class _TakeTimeseriesInputs(ArrayInputSpec):
    timeseries = File(exists=True, mandatory=True)


class _TakeTimeseriesOutputs(TraitedSpec):
    denoised = File(desc="(T, 424) npy, as it was given")
    motion = File(desc="n_dummy, 0")


class TakeTimeseries(ArrayInterface):
    """A parcel series that others made."""

    input_spec = _TakeTimeseriesInputs
    output_spec = _TakeTimeseriesOutputs

    def _compute(self, folder: Path) -> None:
        names = resources.parcels().names
        series = read_timeseries(Path(self.inputs.timeseries), names).values
        path = folder / "denoised.npy"
        np.save(path, series)
        self._results["denoised"] = str(path)
        self._save(folder, "motion", n_dummy=0)
