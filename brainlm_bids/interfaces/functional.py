"""Nipype interfaces of a run before it is cleaned: raw BOLD in; realigned BOLD, its way to the
template, parcels and confounds out.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import (
    File,
    TraitedSpec,
    traits,
)
from numpy.typing import NDArray

from brainlm_bids.errors import RunSkipped
from brainlm_bids.interfaces.array_interface import ArrayInputSpec, ArrayInterface
from brainlm_bids.interfaces.images import (
    load_image,
    load_mask,
    save_image,
)
from brainlm_bids.parcels.sampling import MINIMUM_VOLUMES

LOGGER = logging.getLogger(__name__)

# Share of white matter in a template voxel from which on it counts as white matter only.
PURE_WHITE_MATTER = 0.95
# Share of the volumes in which a voxel must be in view. All of them would let one volume out of
# place cost a run the vertex or the cerebellum.
IN_VIEW = 0.95
# Steps of a stored run relative to the brain's median: ten in units of grand mean 10000, a small
# part of any scanner's noise.
COARSEST_STEP = 1e-3


class _RealignInputs(ArrayInputSpec):
    bold = File(exists=True, mandatory=True)
    dummy_scans = traits.Either(None, traits.Int, usedefault=True)
    device = traits.Enum("cpu", "auto", "cuda", usedefault=True, nohash=True)


class _RealignOutputs(TraitedSpec):
    realigned = File(desc="on the reference's grid, int16 with a slope where that is fine enough")
    boldref = File()
    brain_mask = File(desc="brain, and in view in nearly every volume")
    motion = File(
        desc="matrices (T, 4, 4), parameters (T, 6), centre (3,) mm, n_dummy, filled (share of the "
        "brain's values that were out of view and are interpolated in time)"
    )


class Realign(ArrayInterface):
    """Reference, brain, and rigid motion of a BOLD run."""

    input_spec = _RealignInputs
    output_spec = _RealignOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc.affine import centre_of_mass
        from brainlm_bids.preproc.motion import realign as motion
        from brainlm_bids.preproc.registration.brain import brain_mask_epi

        bold, affine = load_image(self.inputs.bold)
        n_dummy = self._n_dummy(bold)
        device = self.inputs.device
        reference = motion.reference_volume(bold, n_dummy, affine=affine, device=device)
        brain = brain_mask_epi(reference, affine)
        matrices = motion.realign(bold, affine, reference, device=device)
        in_view = motion.volumes_in_view(matrices, affine, reference.shape)
        mask = brain & (in_view >= IN_VIEW * len(matrices))
        centre = centre_of_mass(brain, affine)
        parameters = motion.matrices_to_parameters(matrices, centre)
        # in place: a run is held once
        realigned = motion.resample(bold, affine, matrices, out=bold)
        filled = motion.fill_unseen(realigned, matrices, affine, mask)
        step = float(np.median(reference[mask])) * COARSEST_STEP
        self._results["realigned"] = save_image(
            folder / "realigned.nii", realigned, affine, coarsest_step=step
        )
        self._results["boldref"] = save_image(folder / "boldref.nii.gz", reference, affine)
        self._results["brain_mask"] = save_image(folder / "brain_mask.nii.gz", mask, affine)
        self._save(
            folder,
            "motion",
            matrices=matrices,
            parameters=parameters,
            centre=centre,
            n_dummy=n_dummy,
            filled=filled,
        )

    def _n_dummy(self, bold: NDArray[Any]) -> int:
        from brainlm_bids.preproc.motion import realign as motion

        if self.inputs.dummy_scans is None:
            return motion.detect_dummy_volumes(motion.volumes_summary(bold))
        n_dummy, n_volumes = int(self.inputs.dummy_scans), bold.shape[3]
        if n_volumes - n_dummy < MINIMUM_VOLUMES:
            raise RunSkipped(
                f"{Path(self.inputs.bold).name}: {n_volumes} volumes less {n_dummy} dummy scans "
                f"leave fewer than {MINIMUM_VOLUMES}"
            )
        return n_dummy


class _CoregisterInputs(ArrayInputSpec):
    boldref = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)
    t1w = File(exists=True, mandatory=True)
    t1w_mask = File(exists=True, mandatory=True)
    seed = traits.Int(mandatory=True)


class _CoregisterOutputs(TraitedSpec):
    matrix = File(desc="(4, 4) npy: RAS+ world of the T1w to that of the BOLD reference")
    method = traits.Str(desc="boundary, or mutual information where that was not clear")


class Coregister(ArrayInterface):
    """Rigid registration of the BOLD reference to the T1w image: the brains, then the boundary."""

    input_spec = _CoregisterInputs
    output_spec = _CoregisterOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc.registration import boundary
        from brainlm_bids.preproc.registration.ants import register_rigid

        t1w, t1w_affine = load_image(self.inputs.t1w)
        t1w_mask = load_mask(self.inputs.t1w_mask)
        boldref, bold_affine = load_image(self.inputs.boldref)
        mask = load_mask(self.inputs.brain_mask)
        matrix = register_rigid(
            t1w,
            t1w_affine,
            boldref,
            bold_affine,
            fixed_mask=t1w_mask,
            moving_mask=mask,
            seed=self.inputs.seed,
        )
        surface = boundary.white_surface(t1w, t1w_affine, t1w_mask, self.inputs.seed)
        refined = boundary.refine(surface, boldref, bold_affine, mask, matrix)
        if refined is None:
            LOGGER.warning(
                "%s: no clear boundary of white matter; the registration to the T1w image rests "
                "on mutual information alone",
                self.inputs.boldref,
            )
        path = folder / "matrix.npy"
        np.save(path, matrix if refined is None else refined)
        self._results["matrix"] = str(path)
        self._results["method"] = "mutual information" if refined is None else "boundary"


class _ProjectInputs(ArrayInputSpec):
    atlas = File(exists=True, mandatory=True, desc="labels on their own grid")
    boldref = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)
    transform = File(exists=True, mandatory=True, desc="of the T1w or the BOLD reference")
    matrix = File(exists=True, desc="T1w to BOLD reference; absent when transform is the latter's")


class _ProjectOutputs(TraitedSpec):
    operator = File(desc="W, sparse (424, voxels)")
    tissues = File(desc="sparse (2, voxels): white matter, CSF")
    coverage = File(desc="n_voxels, n_covered, fraction (424,)")
    aroma = File(desc="voxel coordinates (N, 3) of template voxels in view, csf, edge, out (N,)")


class Project(ArrayInterface):
    """Where the atlas, the tissues and AROMA's masks lie in the run's own voxels."""

    input_spec = _ProjectInputs
    output_spec = _ProjectOutputs

    def _compute(self, folder: Path) -> None:
        from scipy import sparse

        from brainlm_bids.parcels import operator as parcellation
        from brainlm_bids.preproc.affine import labelled_points

        mask = load_mask(self.inputs.brain_mask)
        labels, atlas_affine = load_image(self.inputs.atlas)
        names, points = labelled_points(labels.astype(np.int32), atlas_affine)
        operator, coverage = parcellation.build_operator(
            names, self._locate(points), mask.shape, mask
        )
        for name, matrix in (("operator", operator), ("tissues", self._tissues(mask))):
            path = folder / f"{name}.npz"
            sparse.save_npz(path, matrix)
            self._results[name] = str(path)
        self._save(
            folder,
            "coverage",
            n_voxels=coverage.n_voxels,
            n_covered=coverage.n_covered,
            fraction=coverage.fraction,
        )
        self._save(folder, "aroma", **self._aroma(mask.shape))

    def _locate(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Template world coordinates (P, 3) to voxel coordinates of the run."""
        from brainlm_bids.preproc.affine import apply, world_to_voxel
        from brainlm_bids.preproc.registration.transforms import map_points

        world = map_points(points, self.inputs.transform)
        if self.inputs.matrix:
            world = apply(np.load(self.inputs.matrix), world)
        return world_to_voxel(world, load_image(self.inputs.boldref)[1])

    def _tissues(self, mask: NDArray[np.bool_]) -> Any:
        from brainlm_bids import resources
        from brainlm_bids.parcels import operator as parcellation
        from brainlm_bids.preproc.affine import labelled_points, subgrid

        maps, masks = resources.tissue_maps(), resources.aroma_masks()
        # every second voxel of the 1 mm map is plenty for a mean
        white = maps.white_matter[::2, ::2, ::2] > PURE_WHITE_MATTER
        _, white_points = labelled_points(white.astype(np.int32), subgrid(maps.affine, step=2))
        _, csf_points = labelled_points(masks.csf.astype(np.int32), masks.affine)
        names = np.repeat([1, 2], [len(white_points), len(csf_points)])
        points = self._locate(np.concatenate([white_points, csf_points]))
        # for means over large tissues linear interpolation is as good, and quick
        return parcellation.build_operator(names, points, mask.shape, mask, 2, order=1)[0]

    def _aroma(self, shape: tuple[int, ...]) -> dict[str, NDArray[Any]]:
        from brainlm_bids import resources
        from brainlm_bids.preproc.affine import grid_points

        masks = resources.aroma_masks()
        voxels = self._locate(grid_points(masks.csf.shape, masks.affine))
        # beyond the volume every map is 0 and adds nothing to a sum
        inside = ((voxels > -1) & (voxels < np.array(shape))).all(axis=1)
        return {
            "voxels": voxels[inside].astype(np.float32),
            "csf": masks.csf.ravel()[inside],
            "edge": masks.edge.ravel()[inside],
            "out": masks.out.ravel()[inside],
        }


class _ExtractInputs(ArrayInputSpec):
    realigned = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)
    motion = File(exists=True, mandatory=True)
    operator = File(exists=True, mandatory=True)
    tissues = File(exists=True, mandatory=True)
    tr = traits.Float(mandatory=True)
    fd_spike_threshold = traits.Float(mandatory=True)
    dvars_spike_threshold = traits.Float(mandatory=True)


class _ExtractOutputs(TraitedSpec):
    parcels = File(desc="(T, 424) npy, grand mean 10000, NaN without data")
    confounds = File(desc="npz, a (T,) array per confound")
    factor = traits.Float(desc="that scales the run to a grand mean of 10000")


class Extract(ArrayInterface):
    """Parcel series and confounds of the realigned run."""

    input_spec = _ExtractInputs
    output_spec = _ExtractOutputs

    def _compute(self, folder: Path) -> None:
        from scipy import sparse

        from brainlm_bids.parcels import operator as parcellation
        from brainlm_bids.preproc.denoising import confounds, temporal

        bold, _ = load_image(self.inputs.realigned)
        mask = load_mask(self.inputs.brain_mask)
        motion = np.load(self.inputs.motion)
        n_dummy = int(motion["n_dummy"])
        factor = temporal.grand_mean_factor(bold[..., n_dummy:], mask)
        operator = sparse.load_npz(self.inputs.operator)
        parcels = parcellation.parcellate(operator, bold) * factor
        tissues = parcellation.parcellate(sparse.load_npz(self.inputs.tissues), bold) * factor
        brain = np.ascontiguousarray(bold[mask].T)
        table = confounds.confounds_table(
            motion["parameters"],
            motion["matrices"],
            brain.mean(axis=1, dtype=np.float64) * factor,
            tissues[:, 1],
            tissues[:, 0],
            brain,
            n_dummy,
            self.inputs.tr,
            fd_spike_threshold=self.inputs.fd_spike_threshold,
            dvars_spike_threshold=self.inputs.dvars_spike_threshold,
        )
        path = folder / "parcels.npy"
        np.save(path, np.asarray(parcels, dtype=np.float64))
        self._results["parcels"] = str(path)
        self._results["factor"] = float(factor)
        self._save(folder, "confounds", **table)
