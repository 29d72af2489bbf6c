"""Nipype interfaces over existing fMRIPrep derivatives.

They read BOLD, masks, confounds and transforms, and have the outputs of `Realign` and `Extract`,
so that the rest of the graph is the same for both kinds of input.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits
from numpy.typing import NDArray

from brainlm_bids import files
from brainlm_bids.errors import UserError
from brainlm_bids.interfaces import payloads
from brainlm_bids.interfaces.array_interface import ArrayInputSpec, ArrayInterface, errors_about
from brainlm_bids.interfaces.functional import (
    ExtractOutputs,
    load_operator,
    save_extracted,
    save_quality,
)
from brainlm_bids.interfaces.images import is_plain, load_image, load_mask, save_image
from brainlm_bids.settings import Settings

if TYPE_CHECKING:
    from brainlm_bids.preproc.steps import Realigned

# Rounding of headers; far less than a voxel.
SAME_GRID_MM = 0.01


class _TakeInputs(ArrayInputSpec):
    bold = File(exists=True, mandatory=True)
    confounds = File(exists=True, mandatory=True)
    mask = File(exists=True, desc="of the brain; made here if there is none")
    to_template = File(exists=True, desc="ITK; absent when the BOLD is in the template's space")
    to_t1w = File(exists=True, desc="ITK, rigid; absent when the BOLD is in the T1w's space")
    dummy_scans = traits.Either(None, traits.Int, usedefault=True)
    max_bad_volumes = traits.Float(Settings.max_bad_volumes, usedefault=True, desc="share")


class _TakeOutputs(TraitedSpec):
    bold = File(desc="as it came, or with its bad volumes interpolated")
    boldref = File(desc="mean of the good steady-state volumes")
    brain_mask = File()
    motion = File(desc="a `Motion`, without matrices")
    transform = File(desc="resamples into template space; none where the BOLD is there")
    matrix = File(desc="(4, 4) array: RAS+ world of the T1w to that of the BOLD reference")


class TakePreprocessed(ArrayInterface):
    """Reference, brain, motion and geometry of a run that fMRIPrep preprocessed."""

    input_spec = _TakeInputs
    output_spec = _TakeOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc import steps
        from brainlm_bids.preproc.registration.transforms import ItkTransform

        bold, affine = load_image(self.inputs.bold)
        table = read_confounds(self.inputs.confounds, bold.shape[3])
        mask = _load_mask_on(affine, self.inputs.mask) if self.inputs.mask else None
        with errors_about(self.inputs.bold):
            run = steps.take_preprocessed(
                bold,
                affine,
                table,
                brain_mask=mask,
                n_dummy=self.inputs.dummy_scans,
                max_bad_volumes=self.inputs.max_bad_volumes,
                out=bold,
            )
        self._results |= {
            "bold": self._bold(folder, run, affine),
            "boldref": save_image(folder / "boldref.nii.gz", run.boldref, affine),
            "brain_mask": save_image(folder / "brain_mask.nii.gz", run.brain_mask, affine),
            "motion": payloads.save(run.motion, folder / "motion"),
        }
        if self.inputs.to_template:
            self._results["transform"] = self.inputs.to_template
        if self.inputs.to_t1w:
            matrix = payloads.load(ItkTransform, self.inputs.to_t1w).rigid()
            self._results["matrix"] = payloads.save(matrix, folder / "matrix")

    def _bold(self, folder: Path, run: "Realigned", affine: NDArray[np.float64]) -> str:
        """The file as it came, or a copy that the next steps read alike, without bad volumes."""
        path: str = self.inputs.bold
        if is_plain(path) and run.motion.reasons is None:
            return path
        return save_image(folder / "bold.nii", run.bold, affine)


def _load_mask_on(affine: NDArray[np.float64], path: str) -> NDArray[np.bool_]:
    """A mask; UserError if its voxels are not those of the run, or none is in it."""
    data, own = load_image(path)
    if not np.allclose(own, affine, atol=SAME_GRID_MM):
        raise UserError(f"{path}: the affine of the mask is not that of the BOLD")
    mask = data > 0.5
    if not mask.any():
        raise UserError(f"{path}: the brain mask is empty")
    return mask


class _ExtractInputs(ArrayInputSpec):
    bold = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)
    motion = File(exists=True, mandatory=True)
    operator = File(exists=True, mandatory=True)
    tissue = File(exists=True, mandatory=True)
    confounds = File(exists=True, mandatory=True)
    tr = traits.Float(mandatory=True)
    others_operator = File(exists=True, desc="sparse (K, voxels), of further atlases")


class ExtractPreprocessed(ArrayInterface):
    """Parcel series of fMRIPrep's BOLD, its image quality, and confounds that a raw run has too."""

    input_spec = _ExtractInputs
    output_spec = ExtractOutputs

    def _compute(self, folder: Path) -> None:
        from scipy.sparse import csr_matrix

        from brainlm_bids.preproc import steps

        bold, affine = load_image(self.inputs.bold)
        mask = load_mask(self.inputs.brain_mask)
        motion = payloads.load(steps.Motion, self.inputs.motion)
        extracted = steps.extract_preprocessed(
            bold,
            mask,
            payloads.load(csr_matrix, self.inputs.operator),
            read_confounds(self.inputs.confounds, bold.shape[3]),
            motion,
            load_operator(self.inputs.others_operator),
        )
        self._results |= save_extracted(extracted, folder)
        tissue = payloads.load(np.ndarray, self.inputs.tissue)
        displacement = extracted.confounds.get("framewise_displacement")
        measured = steps.measure_image(
            bold, affine, mask, motion, tissue, displacement, self.inputs.tr, acquired=False
        )
        self._results |= save_quality(*measured, folder)


class _StrategyInputs(ArrayInputSpec):
    bold = File(exists=True, mandatory=True)
    motion = File(exists=True, mandatory=True)
    strategy = traits.Str(mandatory=True, desc="a name of nilearn's load_confounds_strategy")


class _StrategyOutputs(TraitedSpec):
    design = File(desc="a `Design`")


class LoadStrategy(ArrayInterface):
    """Confounds of a run and volumes to censor, as nilearn's strategies choose them."""

    input_spec = _StrategyInputs
    output_spec = _StrategyOutputs

    def _compute(self, folder: Path) -> None:
        from nilearn.interfaces.fmriprep import load_confounds_strategy

        from brainlm_bids.preproc import steps

        name = self.inputs.strategy
        options = {"ica_aroma": "basic"} if name == "ica_aroma" else {}
        motion = payloads.load(steps.Motion, self.inputs.motion)
        with errors_about(f"{self.inputs.bold}: --denoise confounds:{name}"):
            try:
                table, kept = load_confounds_strategy(self.inputs.bold, name, **options)
            except (ValueError, KeyError, OSError) as error:
                raise UserError(str(error).strip().splitlines()[0]) from None
            design = steps.select_confounds(
                table.to_numpy(dtype=np.float64),
                list(table.columns),
                kept,
                n_dummy=motion.n_dummy,
                good=motion.good,
            )
        self._results["design"] = payloads.save(design, folder / "design")


def read_confounds(path: str, n_volumes: int) -> dict[str, NDArray[np.float64]]:
    """Read fMRIPrep's table of confounds.

    Parameters
    ----------
    path
        The file.
    n_volumes
        Number of volumes of the run.

    Returns
    -------
    dict
        Name of a column to its values (T,).

    Raises
    ------
    UserError
        If it is not such a table, or belongs to another run.
    """
    names, values = files.read_tsv(Path(path))
    if len(values) != n_volumes:
        raise UserError(f"{path}: {len(values)} rows, the BOLD has {n_volumes} volumes")
    return dict(zip(names, values.T, strict=True))
