"""Nipype interfaces over what fMRIPrep left: its BOLD, masks, confounds and transforms in; the same
outputs as those of `Realign` and `Extract` out, so that the rest of the graph is one.
"""

from pathlib import Path

import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits
from numpy.typing import NDArray

from brainlm_bids import files
from brainlm_bids.errors import RunSkipped, UserError
from brainlm_bids.interfaces.array_interface import ArrayInputSpec, ArrayInterface
from brainlm_bids.interfaces.images import load_image, load_mask, save_image
from brainlm_bids.parcels.sampling import MINIMUM_VOLUMES

IDENTITY = (
    "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
    "Parameters: 1 0 0 0 1 0 0 0 1 0 0 0\nFixedParameters: 0 0 0\n"
)


class _TakeInputs(ArrayInputSpec):
    bold = File(exists=True, mandatory=True)
    confounds = File(exists=True, mandatory=True)
    mask = File(exists=True, desc="of the brain; made here if fMRIPrep left none")
    to_template = File(exists=True, desc="ITK; absent when the BOLD is in the template's space")
    to_t1w = File(exists=True, desc="ITK, rigid; absent when the BOLD is in the T1w's space")
    dummy_scans = traits.Either(None, traits.Int, usedefault=True)


class _TakeOutputs(TraitedSpec):
    realigned = File()
    boldref = File(desc="mean of the steady-state volumes")
    brain_mask = File()
    motion = File(desc="parameters (T, 6), centre (3,) mm, n_dummy")
    transform = File(desc="resamples into template space")
    matrix = File(desc="(4, 4) npy: RAS+ world of the T1w to that of the BOLD reference")


class TakePreprocessed(ArrayInterface):
    """Reference, brain, motion and geometry of a run that fMRIPrep preprocessed."""

    input_spec = _TakeInputs
    output_spec = _TakeOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc.affine import centre_of_mass
        from brainlm_bids.preproc.registration.brain import brain_mask_epi

        bold, affine = load_image(self.inputs.bold)
        table = read_confounds(Path(self.inputs.confounds), bold.shape[3])
        name = Path(self.inputs.bold).name
        n_dummy = count_non_steady(table, bold.shape[3], self.inputs.dummy_scans, name)
        reference = bold[..., n_dummy:].mean(axis=3, dtype=np.float64).astype(np.float32)
        if self.inputs.mask:
            brain = load_mask(self.inputs.mask)
        else:
            brain = brain_mask_epi(reference, affine)
        if brain.shape != reference.shape:
            raise UserError(
                f"{self.inputs.mask}: {brain.shape} voxels, the BOLD has {reference.shape}"
            )
        # fMRIPrep fills what was never in view with 0
        brain &= (bold[..., n_dummy:] != 0).any(axis=3)
        self._results["realigned"] = self.inputs.bold
        self._results["boldref"] = save_image(folder / "boldref.nii.gz", reference, affine)
        self._results["brain_mask"] = save_image(folder / "brain_mask.nii.gz", brain, affine)
        self._save(
            folder,
            "motion",
            parameters=motion_of(table, self.inputs.confounds),
            centre=centre_of_mass(brain, affine),
            n_dummy=n_dummy,
        )
        self._locate(folder)

    def _locate(self, folder: Path) -> None:
        from brainlm_bids.preproc.registration.transforms import read_rigid

        transform = folder / "identity.txt"
        transform.write_text(IDENTITY)
        self._results["transform"] = self.inputs.to_template or str(transform)
        if self.inputs.to_t1w:
            path = folder / "matrix.npy"
            np.save(path, read_rigid(self.inputs.to_t1w))
            self._results["matrix"] = str(path)


class _ExtractInputs(ArrayInputSpec):
    realigned = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)
    motion = File(exists=True, mandatory=True)
    operator = File(exists=True, mandatory=True)
    confounds = File(exists=True, mandatory=True)


class _ExtractOutputs(TraitedSpec):
    parcels = File(desc="(T, 424) npy, grand mean 10000, NaN without data")
    confounds = File(desc="npz, a (T,) array per confound")
    factor = traits.Float(desc="that scales the run to a grand mean of 10000")


class ExtractPreprocessed(ArrayInterface):
    """Parcel series of fMRIPrep's BOLD; the confounds are fMRIPrep's own."""

    input_spec = _ExtractInputs
    output_spec = _ExtractOutputs

    def _compute(self, folder: Path) -> None:
        from scipy import sparse

        from brainlm_bids.parcels import operator as parcellation
        from brainlm_bids.preproc.denoising import temporal
        from brainlm_bids.preproc.denoising.fmriprep import known_confounds

        bold, _ = load_image(self.inputs.realigned)
        mask = load_mask(self.inputs.brain_mask)
        n_dummy = int(np.load(self.inputs.motion)["n_dummy"])
        factor = temporal.grand_mean_factor(bold[..., n_dummy:], mask)
        parcels = parcellation.parcellate(sparse.load_npz(self.inputs.operator), bold) * factor
        path = folder / "parcels.npy"
        np.save(path, np.asarray(parcels, dtype=np.float64))
        self._results["parcels"] = str(path)
        self._results["factor"] = float(factor)
        table = read_confounds(Path(self.inputs.confounds), bold.shape[3])
        self._save(folder, "confounds", **known_confounds(table))


class _StrategyInputs(ArrayInputSpec):
    bold = File(exists=True, mandatory=True)
    motion = File(exists=True, mandatory=True)
    strategy = traits.Str(mandatory=True, desc="a name of nilearn's load_confounds_strategy")


class _StrategyOutputs(TraitedSpec):
    design = File(desc="npz: confounds (T', K), their names, kept (T',)")


class LoadStrategy(ArrayInterface):
    """Confounds of a run and volumes to censor, as nilearn's strategies choose them."""

    input_spec = _StrategyInputs
    output_spec = _StrategyOutputs

    def _compute(self, folder: Path) -> None:
        from nilearn.interfaces.fmriprep import load_confounds_strategy

        name, motion = self.inputs.strategy, np.load(self.inputs.motion)
        n_dummy = int(motion["n_dummy"])
        options = {"ica_aroma": "basic"} if name == "ica_aroma" else {}
        try:
            table, kept = load_confounds_strategy(self.inputs.bold, name, **options)
        except (ValueError, KeyError, OSError) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(f"{self.inputs.bold}: --denoise confounds:{name}: {first}") from None
        # Our own filter, which is narrower, is applied to series and confounds.
        names = [column for column in table.columns if not column.startswith("cosine")]
        design = np.nan_to_num(table[names].to_numpy(dtype=np.float64))
        mask = np.ones(len(design), dtype=bool)
        if kept is not None:
            mask[:] = False
            mask[np.asarray(kept)] = True
        if mask[n_dummy:].sum() < MINIMUM_VOLUMES:
            raise RunSkipped(
                f"{Path(self.inputs.bold).name}: --denoise confounds:{name} leaves "
                f"{int(mask[n_dummy:].sum())} volumes, fewer than {MINIMUM_VOLUMES}"
            )
        self._save(
            folder,
            "design",
            confounds=design[n_dummy:],
            names=np.array(names),
            kept=mask[n_dummy:],
        )


def read_confounds(path: Path, n_volumes: int) -> dict[str, NDArray[np.float64]]:
    """Columns of fMRIPrep's table; UserError where it is not one, or of another run."""
    names, values = files.read_tsv(path)
    if len(values) != n_volumes:
        raise UserError(f"{path}: {len(values)} rows, the BOLD has {n_volumes} volumes")
    return dict(zip(names, values.T, strict=True))


def motion_of(table: dict[str, NDArray[np.float64]], path: str) -> NDArray[np.float64]:
    """(T, 6) motion parameters; UserError, with the table's path, for a missing column."""
    from brainlm_bids.preproc.denoising.fmriprep import motion_parameters

    try:
        return motion_parameters(table)
    except KeyError as error:
        raise UserError(f"{path}: there is no column {error}") from None


def count_non_steady(
    table: dict[str, NDArray[np.float64]], n_volumes: int, given: int | None, name: str
) -> int:
    """How many volumes to drop at the start: those given, or those that fMRIPrep marked."""
    from brainlm_bids.preproc.denoising.fmriprep import n_non_steady

    n_dummy = n_non_steady(table) if given is None else int(given)
    if n_volumes - n_dummy < MINIMUM_VOLUMES:
        raise RunSkipped(
            f"{name}: {n_volumes} volumes less {n_dummy} non-steady ones leave fewer than "
            f"{MINIMUM_VOLUMES}"
        )
    return n_dummy
