"""Nipype interfaces: each loads arrays, calls the kernels of one stage, and saves arrays.

Images are NIfTI files, series and matrices `.npy`/`.npz` in the node's folder; files of the
derivatives are written by the interfaces of `interfaces_outputs`.
"""

import contextlib
import json
import logging
import os
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)
from numpy.typing import NDArray

from brainlm_bids.bids.inputs import MINIMUM_VOLUMES
from brainlm_bids.errors import RunSkipped, UserError

LOGGER = logging.getLogger(__name__)

RESOURCES_FILE = "resources.json"
# Share of white matter in a template voxel from which on it counts as white matter only.
PURE_WHITE_MATTER = 0.95
# Share of the volumes in which a voxel must be in view. All of them would let one volume out of
# place cost a run the vertex or the cerebellum.
IN_VIEW = 0.95
# Steps of a stored run relative to the brain's median: ten in units of grand mean 10000, a small
# part of any scanner's noise.
COARSEST_STEP = 1e-3


class KernelInputSpec(BaseInterfaceInputSpec):
    """What every interface takes; `nohash`: a matter of speed does not void the cache."""

    n_threads = traits.Int(1, usedefault=True, nohash=True, desc="threads of this process")
    use_gpu = traits.Bool(False, usedefault=True, nohash=True, desc="counts for n_gpu_procs")


class Kernel(SimpleInterface):
    """Runs `_compute(folder)` with a fixed number of threads and notes time and memory."""

    input_spec = KernelInputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from threadpoolctl import threadpool_limits

        n_threads = self.inputs.n_threads
        # ITK reads it when its first filter is made, torch when it is imported
        os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(n_threads)
        folder = Path(runtime.cwd)
        started = time.monotonic()
        _forget_peak_memory()
        with threadpool_limits(n_threads):
            self._compute(folder)
        used = {"seconds": time.monotonic() - started, "peak_memory_mb": _peak_memory_mb()}
        (folder / RESOURCES_FILE).write_text(json.dumps(used))
        return runtime

    def _compute(self, folder: Path) -> None:
        raise NotImplementedError

    def _save(self, folder: Path, name: str, **arrays: Any) -> None:
        path = folder / f"{name}.npz"
        np.savez(path, **arrays)
        self._results[name] = str(path)


def _forget_peak_memory() -> None:
    # Linux: 5 resets the high-water mark, so that a worker's earlier nodes do not count
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory_mb() -> float:
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- loading and saving ----------------------------------------------------------------------


def load_image(path: str) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """An image's data as float32 and its affine."""
    import nibabel as nb

    image = nb.load(path)
    stored, affine = image.dataobj, image.affine  # type: ignore[attr-defined]
    if len(stored.shape) < 4:
        return np.asarray(stored, dtype=np.float32), affine
    # volume by volume: scaled at once, a run would be held as float64 beside the result. A
    # compressed file is read whole, since each slice would inflate it from the start.
    raw = stored.get_unscaled()
    data = np.empty(raw.shape, dtype=np.float32, order="F")
    for t in range(raw.shape[3]):
        data[..., t] = raw[..., t] * float(stored.slope) + float(stored.inter)
    return data, affine


def load_mask(path: str) -> NDArray[np.bool_]:
    """A mask as bool."""
    return load_image(path)[0] > 0.5


def save_image(
    path: Path,
    data: NDArray[Any],
    affine: NDArray[np.float64],
    tr: float | None = None,
    coarsest_step: float = 0.0,
) -> str:
    """Save an image in scanner units (mm, s); bool as uint8.

    Stored as int16 with slope and intercept, in half of the space of float32, if its values are
    then exact to steps no wider than `coarsest_step`.
    """
    import nibabel as nb

    stored = data.astype(np.uint8) if data.dtype == bool else data
    image = nb.Nifti1Image(stored, affine)
    image.header.set_xyzt_units("mm", "sec")
    if tr is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], tr))
    if coarsest_step > 0 and float(data.max() - data.min()) / 65_000 <= coarsest_step:
        image.set_data_dtype(np.int16)
    image.to_filename(path)
    return str(path)


def world_to_voxel(points: NDArray[np.float64], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Voxel coordinates (P, 3) of world points (P, 3) in a grid.

    >>> world_to_voxel(np.array([[4.0, 0.0, 0.0]]), np.diag([2.0, 2.0, 2.0, 1.0]))
    array([[2., 0., 0.]])
    """
    inverse = np.linalg.inv(affine)
    return points @ inverse[:3, :3].T + inverse[:3, 3]


def rigid_points(points: NDArray[np.float64], matrix_file: Any) -> NDArray[np.float64]:
    """World points (P, 3) moved by a saved (4, 4) matrix; as they are where there is none."""
    if not matrix_file:
        return points
    matrix = np.load(matrix_file)
    return np.asarray(points @ matrix[:3, :3].T + matrix[:3, 3])


# --- anatomy ---------------------------------------------------------------------------------


class _PrepareT1wInputs(KernelInputSpec):
    t1w = File(exists=True, mandatory=True)


class _PrepareT1wOutputs(TraitedSpec):
    t1w = File(desc="bias field removed")
    brain_mask = File()
    method = traits.Str(desc="how the brain was found")


class PrepareT1w(Kernel):
    """Bias field and brain of a T1w image."""

    input_spec = _PrepareT1wInputs
    output_spec = _PrepareT1wOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc import registration

        data, affine = load_image(self.inputs.t1w)
        mask, method = registration.brain_mask_t1w(data, affine)
        corrected = registration.bias_correct(data, affine, mask)
        self._results["t1w"] = save_image(folder / "t1w.nii.gz", corrected, affine)
        self._results["brain_mask"] = save_image(folder / "brain_mask.nii.gz", mask, affine)
        self._results["method"] = method


class _NormaliseInputs(KernelInputSpec):
    image = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)
    template = File(exists=True, mandatory=True)
    template_mask = File(exists=True, mandatory=True)
    kind = traits.Enum("T1w", "boldref", mandatory=True)
    seed = traits.Int(mandatory=True)


class _NormaliseOutputs(TraitedSpec):
    transform = File(desc="ITK composite: resamples the image into template space")


class Normalise(Kernel):
    """Non-linear registration of a T1w image, or of a BOLD reference, to the template."""

    input_spec = _NormaliseInputs
    output_spec = _NormaliseOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc import registration

        moving, moving_affine = load_image(self.inputs.image)
        template, template_affine = load_image(self.inputs.template)
        transform = registration.register_to_template(
            moving,
            moving_affine,
            template,
            template_affine,
            moving_mask=load_mask(self.inputs.brain_mask),
            template_mask=load_mask(self.inputs.template_mask),
            out_file=folder / "transform.h5",
            seed=self.inputs.seed,
            kind=self.inputs.kind,
        )
        self._results["transform"] = str(transform)


# --- motion ----------------------------------------------------------------------------------


class _RealignInputs(KernelInputSpec):
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


class Realign(Kernel):
    """Reference, brain, and rigid motion of a BOLD run."""

    input_spec = _RealignInputs
    output_spec = _RealignOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc import motion, registration

        bold, affine = load_image(self.inputs.bold)
        n_dummy = self._n_dummy(bold)
        device = self.inputs.device
        reference = motion.reference_volume(bold, n_dummy, affine=affine, device=device)
        brain = registration.brain_mask_epi(reference, affine)
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
        from brainlm_bids.preproc import motion

        if self.inputs.dummy_scans is None:
            return motion.detect_dummy_volumes(motion.volumes_summary(bold))
        n_dummy, n_volumes = int(self.inputs.dummy_scans), bold.shape[3]
        if n_volumes - n_dummy < MINIMUM_VOLUMES:
            raise RunSkipped(
                f"{Path(self.inputs.bold).name}: {n_volumes} volumes less {n_dummy} dummy scans "
                f"leave fewer than {MINIMUM_VOLUMES}"
            )
        return n_dummy


def centre_of_mass(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of a mask, in mm."""
    return np.asarray(affine[:3, :3] @ np.argwhere(mask).mean(axis=0) + affine[:3, 3])


class _CoregisterInputs(KernelInputSpec):
    boldref = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)
    t1w = File(exists=True, mandatory=True)
    t1w_mask = File(exists=True, mandatory=True)
    seed = traits.Int(mandatory=True)


class _CoregisterOutputs(TraitedSpec):
    matrix = File(desc="(4, 4) npy: RAS+ world of the T1w to that of the BOLD reference")
    method = traits.Str(desc="boundary, or mutual information where that was not clear")


class Coregister(Kernel):
    """Rigid registration of the BOLD reference to the T1w image: the brains, then the boundary."""

    input_spec = _CoregisterInputs
    output_spec = _CoregisterOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc import boundary, registration

        t1w, t1w_affine = load_image(self.inputs.t1w)
        t1w_mask = load_mask(self.inputs.t1w_mask)
        boldref, bold_affine = load_image(self.inputs.boldref)
        mask = load_mask(self.inputs.brain_mask)
        matrix = registration.register_rigid(
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


# --- parcels ---------------------------------------------------------------------------------


class _ProjectInputs(KernelInputSpec):
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


class Project(Kernel):
    """Where the atlas, the tissues and AROMA's masks lie in the run's own voxels."""

    input_spec = _ProjectInputs
    output_spec = _ProjectOutputs

    def _compute(self, folder: Path) -> None:
        from scipy import sparse

        from brainlm_bids import parcellation

        mask = load_mask(self.inputs.brain_mask)
        labels, atlas_affine = load_image(self.inputs.atlas)
        names, points = parcellation.atlas_points(labels.astype(np.int32), atlas_affine)
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
        from brainlm_bids.preproc import registration

        world = registration.map_points(points, self.inputs.transform)
        world = rigid_points(world, self.inputs.matrix)
        return world_to_voxel(world, load_image(self.inputs.boldref)[1])

    def _tissues(self, mask: NDArray[np.bool_]) -> Any:
        from brainlm_bids import parcellation, resources

        maps, masks = resources.tissue_maps(), resources.aroma_masks()
        # every second voxel of the 1 mm map is plenty for a mean
        white = maps.white_matter[::2, ::2, ::2] > PURE_WHITE_MATTER
        affine = maps.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
        _, white_points = parcellation.atlas_points(white.astype(np.int32), affine)
        _, csf_points = parcellation.atlas_points(masks.csf.astype(np.int32), masks.affine)
        names = np.repeat([1, 2], [len(white_points), len(csf_points)])
        points = self._locate(np.concatenate([white_points, csf_points]))
        # for means over large tissues linear interpolation is as good, and quick
        return parcellation.build_operator(names, points, mask.shape, mask, 2, order=1)[0]

    def _aroma(self, shape: tuple[int, ...]) -> dict[str, NDArray[Any]]:
        from brainlm_bids import resources

        masks = resources.aroma_masks()
        index = np.argwhere(np.ones(masks.csf.shape, dtype=bool))
        points = index @ masks.affine[:3, :3].T + masks.affine[:3, 3]
        voxels = self._locate(points)
        # beyond the volume every map is 0 and adds nothing to a sum
        inside = ((voxels > -1) & (voxels < np.array(shape))).all(axis=1)
        kept = tuple(index[inside].T)
        return {
            "voxels": voxels[inside].astype(np.float32),
            "csf": masks.csf[kept],
            "edge": masks.edge[kept],
            "out": masks.out[kept],
        }


class _ExtractInputs(KernelInputSpec):
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


class Extract(Kernel):
    """Parcel series and confounds of the realigned run."""

    input_spec = _ExtractInputs
    output_spec = _ExtractOutputs

    def _compute(self, folder: Path) -> None:
        from scipy import sparse

        from brainlm_bids import parcellation
        from brainlm_bids.preproc import confounds, temporal

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


# --- ICA -------------------------------------------------------------------------------------


class _DecomposeInputs(KernelInputSpec):
    realigned = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)
    motion = File(exists=True, mandatory=True)
    factor = traits.Float(mandatory=True)
    fwhm = traits.Float(6.0, usedefault=True, desc="smoothing before the ICA, mm")
    seed = traits.Int(mandatory=True)


class _DecomposeOutputs(TraitedSpec):
    components = File(
        desc="mixing (T - n_dummy, K), maps (K, V), variance (K,), converged, n_iter, n_starts"
    )


class Decompose(Kernel):
    """Spatial ICA of the smoothed steady-state volumes."""

    input_spec = _DecomposeInputs
    output_spec = _DecomposeOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc import ica

        bold, affine = load_image(self.inputs.realigned)
        mask = load_mask(self.inputs.brain_mask)
        n_dummy = int(np.load(self.inputs.motion)["n_dummy"])
        series = ica.smooth_series(bold[..., n_dummy:], affine, mask, self.inputs.fwhm)
        del bold
        series *= self.inputs.factor
        samples = ica.effective_samples(series, mask)
        n_components = ica.estimate_dimension(series, n_effective=samples)
        found = ica.spatial_ica(series, n_components, self.inputs.seed)
        self._save(
            folder,
            "components",
            mixing=found.mixing,
            maps=found.maps,
            variance=found.explained_variance,
            converged=found.converged,
            n_iter=found.n_iter,
            n_starts=found.n_starts,
        )


class _ClassifyInputs(KernelInputSpec):
    components = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)
    motion = File(exists=True, mandatory=True)
    aroma = File(exists=True, mandatory=True)
    tr = traits.Float(mandatory=True)
    seed = traits.Int(mandatory=True)


class _ClassifyOutputs(TraitedSpec):
    decisions = File(
        desc="max_rp_corr, edge_fract, csf_fract, hfc, variance, noise (K,), reason (K,)"
    )


class Classify(Kernel):
    """ICA-AROMA's features and decision."""

    input_spec = _ClassifyInputs
    output_spec = _ClassifyOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids.preproc import ica

        components, motion = np.load(self.inputs.components), np.load(self.inputs.motion)
        mixing = components["mixing"]
        parameters = motion["parameters"][int(motion["n_dummy"]) :]
        where = np.load(self.inputs.aroma)
        thresholded = ica.threshold_maps(components["maps"])
        maps = ica.sample_maps(thresholded, load_mask(self.inputs.brain_mask), where["voxels"])
        correlation = ica.max_rp_corr(mixing, parameters, self.inputs.seed)
        edge, csf = ica.edge_csf_fractions(maps, where["csf"], where["edge"], where["out"])
        hfc = ica.high_frequency_content(mixing, self.inputs.tr)
        noise, reasons = ica.classify(correlation, edge, csf, hfc)
        self._save(
            folder,
            "decisions",
            max_rp_corr=correlation,
            edge_fract=edge,
            csf_fract=csf,
            hfc=hfc,
            variance=components["variance"],
            noise=noise,
            reason=np.array(reasons),
        )


# --- denoising and scaling -------------------------------------------------------------------


class _DenoiseInputs(KernelInputSpec):
    parcels = File(exists=True, mandatory=True)
    components = File(exists=True, desc="absent for runs without volumes, which have no ICA")
    decisions = File(exists=True)
    motion = File(exists=True, mandatory=True)
    tr = traits.Float(mandatory=True)
    mode = traits.Str(mandatory=True, desc="nonaggr, aggr, none, or confounds:<strategy>")
    design = File(exists=True, desc="npz: confounds (T', K), kept (T',), for a strategy")
    high_pass = traits.Float(mandatory=True)
    low_pass = traits.Either(None, traits.Float, usedefault=True)


class _DenoiseOutputs(TraitedSpec):
    denoised = File(desc="(T, 424) npy; non-steady volumes and parcels without data are NaN")
    cleaning = File(desc="npz: matrix (T', T') that denoises and filters demeaned steady volumes")


class Denoise(Kernel):
    """Removal of components or confounds, and the high-pass (and low-pass) filter, on parcels."""

    input_spec = _DenoiseInputs
    output_spec = _DenoiseOutputs

    def _compute(self, folder: Path) -> None:
        n_dummy = int(np.load(self.inputs.motion)["n_dummy"])
        parcels = np.load(self.inputs.parcels)
        steady = parcels[n_dummy:]
        cleaning = self._cleaning(self._filter(len(steady)))
        mean = steady.mean(axis=0)
        denoised = np.full(parcels.shape, np.nan)
        # FEAT adds the mean back, so that the series keeps its scale
        denoised[n_dummy:] = cleaning @ (steady - mean) + mean
        path = folder / "denoised.npy"
        np.save(path, denoised)
        self._results["denoised"] = str(path)
        self._save(folder, "cleaning", matrix=cleaning)

    def _filter(self, n_volumes: int) -> NDArray[np.float64]:
        from brainlm_bids.preproc import temporal

        tr, low_pass = self.inputs.tr, self.inputs.low_pass
        kept = temporal.highpass_matrix(n_volumes, tr, self.inputs.high_pass)
        if low_pass is None:
            return kept
        return np.asarray(temporal.gaussian_lowpass_matrix(n_volumes, tr, low_pass) @ kept)

    def _cleaning(self, temporal_filter: NDArray[np.float64]) -> NDArray[np.float64]:
        from brainlm_bids.preproc import fmriprep, ica

        if self.inputs.design:
            design = np.load(self.inputs.design)
            try:
                return fmriprep.confound_cleaning(
                    design["confounds"], design["kept"], temporal_filter
                )
            except ValueError as error:
                raise UserError(f"--denoise {self.inputs.mode}: {error}") from None
        if not self.inputs.components:
            return temporal_filter
        mixing = np.load(self.inputs.components)["mixing"]
        noise = np.load(self.inputs.decisions)["noise"]
        removal = ica.removal_matrix(mixing, noise, self.inputs.mode)
        return np.asarray(temporal_filter @ removal)


class _ScaleInputs(KernelInputSpec):
    denoised = File(exists=True, mandatory=True)
    motion = File(exists=True, mandatory=True)
    tr = traits.Float(mandatory=True)
    model_tr = traits.Float(mandatory=True)
    statistics = File(exists=True, desc="TSV of another cohort")


class _ScaleOutputs(TraitedSpec):
    robust = File(desc="npz: series (T', 424), filled (424,), median, iqr (424,), tr")


class Scale(Kernel):
    """Resampling to the model's TR and robust scaling."""

    input_spec = _ScaleInputs
    output_spec = _ScaleOutputs

    def _compute(self, folder: Path) -> None:
        from brainlm_bids import resources, scaling
        from brainlm_bids.model import windows

        n_dummy = int(np.load(self.inputs.motion)["n_dummy"])
        series = np.load(self.inputs.denoised)[n_dummy:]
        series, tr = windows.at_rate(series, self.inputs.tr, self.inputs.model_tr)
        if self.inputs.statistics:
            names = list(resources.parcels().names)
            stats = scaling.load_stats(Path(self.inputs.statistics), names)
        else:
            stats = scaling.recording_stats(series)
        scaled, filled = scaling.scale(series, stats)
        self._save(
            folder,
            "robust",
            series=scaled,
            filled=filled,
            median=stats.median,
            iqr=stats.iqr,
            tr=tr,
        )
