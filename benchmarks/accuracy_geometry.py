"""Geometry against the phantom's truth: motion, registration, parcels; peers on the same input.

The phantom moves up to 2.6 mm and 2 degrees at 3.5 mm, with all its noise, the thermal part raised
to 2 % of grey matter. Errors are distances (mm) over the brain. A pipeline is free to choose the
pose of its reference: that pose is fitted to the truth over all volumes, once, by its motion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial.transform import Rotation

from benchmarks.table import Row
from brainlm_bids import phantom, resources
from brainlm_bids.parcels import operator as parcellation
from brainlm_bids.phantom import scene
from brainlm_bids.phantom.head import Warp, load_warp
from brainlm_bids.preproc.affine import apply, labelled_points
from brainlm_bids.preproc.motion import realign as motion
from brainlm_bids.preproc.motion import splines, steady, view
from brainlm_bids.preproc.registration import ants as registration
from brainlm_bids.preproc.registration import boundary
from brainlm_bids.preproc.registration.brain import bias_correct, brain_mask_epi, brain_mask_t1w
from brainlm_bids.preproc.registration.transforms import ItkTransform, to_ants

NOISE = 0.02
N_PEER_VOLUMES = 10  # that the slow peers are given


def rows(seed: int, quick: bool) -> Iterator[Row]:
    """Measure the geometry rows of the accuracy table."""
    with TemporaryDirectory() as folder:
        case = make_case(Path(folder), seed, 40 if quick else 120)
        yield from motion_rows(case, quick)
        yield from view_rows(case)
        yield from coregistration_rows(case, quick)
        yield from normalisation_rows(case, quick)
        yield from parcel_rows(case, quick)


# --- the case ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One subject of the phantom, its truth, and what the project's kernels make of it."""

    folder: Path
    bold: np.ndarray  # (X, Y, Z, T) float32
    affine: np.ndarray
    t1w: np.ndarray
    t1w_affine: np.ndarray
    truth: np.ndarray  # (T, 4, 4) pull matrices, phantom's reference -> volume
    bold_to_t1w: np.ndarray
    warp: Warp
    brain: np.ndarray  # (N, 3) mm, in the phantom's reference
    seed: int

    @cached_property
    def n_dummy(self) -> int:
        return steady.detect_dummy_volumes(steady.volumes_summary(self.bold))

    @cached_property
    def reference(self) -> np.ndarray:
        return motion.reference_volume(self.bold, self.n_dummy, affine=self.affine)

    @cached_property
    def matrices(self) -> np.ndarray:
        return motion.realign(self.bold, self.affine, self.reference)

    @cached_property
    def pose(self) -> np.ndarray:
        return fitted_pose(self.matrices[self.n_dummy :], self.truth[self.n_dummy :])

    @cached_property
    def mask(self) -> np.ndarray:
        return brain_mask_epi(self.reference, self.affine)

    @cached_property
    def t1w_brain(self) -> tuple[np.ndarray, np.ndarray]:
        """T1w without its bias field, and mask."""
        mask = brain_mask_t1w(self.t1w, self.t1w_affine)[0]
        return bias_correct(self.t1w, self.t1w_affine, mask), mask

    @cached_property
    def template(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """T1w, mask, affine."""
        found = resources.find_template(resources.EMBEDDED_SPACE)
        data, affine = found.load_t1w()
        return data, found.load_brain_mask()[0] > 0, affine

    @cached_property
    def template_points(self) -> np.ndarray:
        _, mask, affine = self.template
        return nib.affines.apply_affine(affine, np.argwhere(mask)[::23])

    @cached_property
    def t1w_to_reference(self) -> np.ndarray:
        """The true pull (4, 4) from the T1w to the pose of our reference."""
        return np.linalg.inv(self.pose) @ np.linalg.inv(self.bold_to_t1w)

    @cached_property
    def atlas(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels (P,) and points (P, 3) of the embedded atlas."""
        labels, affine = resources.approximate_atlas()
        return labelled_points(labels.astype(int), affine)


def make_case(folder: Path, seed: int, n_volumes: int, kind: str = "high") -> Case:
    """Write a phantom and read it back with its truth."""
    phantom.write_phantom(
        folder / "bids", n_subjects=1, n_volumes=n_volumes, motion=kind, seed=seed
    )
    raw = folder / "bids" / "sub-01"
    truth = folder / "bids" / "derivatives" / "phantom" / "sub-01"
    bold = nib.Nifti1Image.from_filename(raw / "func" / "sub-01_task-rest_bold.nii.gz")
    t1w = nib.Nifti1Image.from_filename(raw / "anat" / "sub-01_T1w.nii.gz")
    stem = truth / "func" / "sub-01_task-rest"
    geometry = np.load(f"{stem}_desc-truth_geometry.npz")
    tissue = nib.Nifti1Image.from_filename(f"{stem}_space-boldref_desc-tissue_dseg.nii.gz")
    data = np.asarray(bold.dataobj, dtype=np.float32)
    extra = scene.GREY_LEVEL * np.sqrt(NOISE**2 - scene.NOISE**2)
    rng = np.random.default_rng(seed)
    for t in range(data.shape[3]):
        data[..., t] += extra * rng.standard_normal(data.shape[:3], np.float32)
    return Case(
        folder=folder,
        bold=data,
        affine=bold.affine,
        t1w=np.asarray(t1w.dataobj, dtype=np.float32),
        t1w_affine=t1w.affine,
        truth=geometry["matrices"],
        bold_to_t1w=geometry["bold_to_t1w"],
        warp=load_warp(next((truth / "anat").glob("*_xfm.npz"))),
        brain=nib.affines.apply_affine(tissue.affine, np.argwhere(np.asarray(tissue.dataobj))),
        seed=seed,
    )


def fitted_pose(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The rigid pull (4, 4) from an estimate's reference to the truth's, (T, 4, 4) both."""
    free = np.linalg.inv(truth) @ found
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_matrix(free[:, :3, :3]).mean().as_matrix()
    pose[:3, 3] = np.median(free[:, :3, 3], axis=0)
    return pose


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(first - second, axis=1))


def motion_errors(found: np.ndarray, truth: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Mean displacement error (T,), mm, over points (N, 3) of the brain."""
    pose = fitted_pose(found, truth)
    here = apply(np.linalg.inv(pose), brain)
    return np.array(
        [distances(apply(f, here), apply(t, brain)).mean() for f, t in zip(found, truth)]
    )


# --- motion -----------------------------------------------------------------------------------


def motion_rows(case: Case, quick: bool) -> Iterator[Row]:
    steady = slice(case.n_dummy, None)
    brain = case.brain[::11]
    errors = motion_errors(case.matrices[steady], case.truth[steady], brain)
    chosen = np.linspace(case.n_dummy, len(case.truth) - 1, N_PEER_VOLUMES).round().astype(int)
    still = np.tile(np.eye(4), (len(chosen), 1, 1))
    theirs = {"identity": still, "SimpleITK": simpleitk_motion(case, chosen)}
    if not quick:
        theirs["antspyx"] = antspyx_motion(case, chosen)
    peers = {k: motion_errors(v, case.truth[chosen], brain) for k, v in theirs.items()}
    note = f"{len(errors)} volumes; peers: {N_PEER_VOLUMES}"
    means = {name: float(values.mean()) for name, values in peers.items()}
    worst = {name: float(values.max()) for name, values in peers.items()}
    yield Row("motion", "mean (mm)", float(errors.mean()), "<= 0.06", means, note)
    yield Row("motion", "worst volume (mm)", float(errors.max()), "<= 0.2", worst, note)


def antspyx_motion(case: Case, chosen: np.ndarray) -> np.ndarray:
    """(T, 4, 4) by ants.motion_correction, to our reference."""
    import ants

    fixed = to_ants(case.reference, case.affine)
    volumes = [to_ants(case.bold[..., t], case.affine) for t in chosen]
    direction = np.eye(4)
    direction[:3, :3] = fixed.direction
    blank = ants.make_image(
        (*case.reference.shape, len(chosen)),
        spacing=(*fixed.spacing, 1.0),
        origin=(*fixed.origin, 0.0),
        direction=direction,
    )
    run = ants.list_to_ndimage(blank, volumes)
    done = ants.motion_correction(run, fixed=fixed, type_of_transform="Rigid")
    found = []
    for files in done["motion_parameters"]:
        assert len(files) == 1, files
        found.append(ItkTransform.from_file(files[0]).rigid())
    return np.array(found)


def simpleitk_motion(case: Case, chosen: np.ndarray) -> np.ndarray:
    """(T, 4, 4) by Mattes' mutual information at a quarter of the voxels, two levels."""
    import SimpleITK as sitk  # noqa: N813

    def image(data: np.ndarray) -> Any:
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ case.affine
        spacing = np.sqrt((lps[:3, :3] ** 2).sum(axis=0))
        made = sitk.GetImageFromArray(np.ascontiguousarray(data.T, dtype=np.float32))
        made.SetSpacing(spacing.tolist())
        made.SetOrigin(lps[:3, 3].tolist())
        made.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
        return made

    fixed = image(case.reference)
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    found = []
    for t in chosen:
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(32)
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(0.25)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(0.5, 1e-4, 200)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetShrinkFactorsPerLevel([2, 1])
        method.SetSmoothingSigmasPerLevel([1, 0.5])
        start = sitk.CenteredTransformInitializer(
            fixed, fixed, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.GEOMETRY
        )
        method.SetInitialTransform(start, inPlace=False)
        transform = method.Execute(fixed, image(case.bold[..., t]))
        corners = np.vstack([np.zeros(3), np.eye(3)])
        mapped = np.array([transform.TransformPoint(corner.tolist()) for corner in corners])
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = (mapped[1:] - mapped[0]).T, mapped[0]
        found.append(flip @ matrix @ flip)
    return np.array(found)


def view_rows(case: Case) -> Iterator[Row]:
    """One volume 30 mm out of place must not cost the run a part of its brain."""
    wild = case.matrices.copy()
    wild[len(wild) // 2, 2, 3] += 30.0
    shape = case.reference.shape
    count = view.volumes_in_view(wild, case.affine, shape)
    before = view.volumes_in_view(case.matrices, case.affine, shape) >= 0.95 * len(wild)
    kept = case.mask & before
    share = {
        k: float((kept & (count >= n)).sum() / kept.sum())
        for k, n in (("ours", 0.95 * len(wild)), ("in every volume", len(wild)))
    }
    yield Row(
        "field of view",
        "brain kept, one wild volume",
        share.pop("ours"),
        ">= 0.99",
        share,
        "in view in 95 % of the volumes",
    )


# --- registration -----------------------------------------------------------------------------


def coregistration_rows(case: Case, quick: bool) -> Iterator[Row]:
    t1w, t1w_mask = case.t1w_brain
    brain = apply(case.bold_to_t1w, case.brain[::11])
    truth = apply(case.t1w_to_reference, brain)
    start = registration.register_rigid(
        t1w,
        case.t1w_affine,
        case.reference,
        case.affine,
        fixed_mask=t1w_mask,
        moving_mask=case.mask,
        seed=case.seed,
    )
    surface = boundary.white_surface(t1w, case.t1w_affine, t1w_mask)
    found = boundary.refine(surface, case.reference, case.affine, case.mask, start)
    matrices = {"identity": np.eye(4), "mutual information (our start)": start}
    if not quick:
        matrices["antspyx Rigid"] = antspyx_rigid(case, t1w)
    peers = {k: float(distances(apply(m, brain), truth).mean()) for k, m in matrices.items()}
    error = np.nan if found is None else distances(apply(found, brain), truth).mean()
    yield Row("BOLD to T1w", "mean (mm)", float(error), "<= 0.5", peers)


def antspyx_rigid(case: Case, t1w: np.ndarray) -> np.ndarray:
    import ants

    done = ants.registration(
        to_ants(t1w, case.t1w_affine),
        to_ants(case.reference, case.affine),
        type_of_transform="Rigid",
    )
    return ItkTransform.from_file(done["fwdtransforms"][0]).rigid()


def normalisation_rows(case: Case, quick: bool) -> Iterator[Row]:
    template, template_mask, template_affine = case.template
    t1w, t1w_mask = case.t1w_brain
    anatomy = case.warp.to_t1w(case.template_points)
    truths = {"T1w": anatomy, "boldref": apply(case.t1w_to_reference, anatomy)}
    images = {
        "T1w": (t1w, case.t1w_affine, t1w_mask),
        "boldref": (case.reference, case.affine, case.mask),
    }
    bounds = {"T1w": ("T1w to MNI", "<= 2.0"), "boldref": ("BOLD to MNI, no T1w", "<= 3.5")}
    for kind, (data, affine, mask) in images.items():
        transform = registration.register_to_template(
            data,
            affine,
            template,
            template_affine,
            moving_mask=mask,
            template_mask=template_mask,
            seed=case.seed,
            kind=kind,  # type: ignore[arg-type]
        )
        errors = distances(transform(case.template_points), truths[kind])
        peers = {}
        if not quick:
            for name, type_ in {"affine only": "Affine", "antspyx SyN": "SyN"}.items():
                theirs = antspyx_transform(case, np.where(mask, data, 0), affine, type_)
                there = ItkTransform.from_file(theirs)(case.template_points)
                peers[name] = float(np.median(distances(there, truths[kind])))
        stage, bound = bounds[kind]
        note = f"95th percentile {np.percentile(errors, 95):.1f} mm"
        yield Row(stage, "median (mm)", float(np.median(errors)), bound, peers, note)


def antspyx_transform(case: Case, brain: np.ndarray, affine: np.ndarray, type_: str) -> str:
    """The composite file of what antspyx makes by its own defaults."""
    import ants

    template, mask, template_affine = case.template
    done = ants.registration(
        to_ants(np.where(mask, template, 0), template_affine),
        to_ants(brain, affine),
        type_of_transform=type_,
        write_composite_transform=True,
    )
    return str(done["fwdtransforms"])


# --- parcels ----------------------------------------------------------------------------------


def parcel_rows(case: Case, quick: bool) -> Iterator[Row]:
    """The operator against resampling, and what other ways to sample would change."""
    from brainlm_bids.phantom.oracle import correlations

    names, points = case.atlas
    inverse = np.linalg.inv(case.affine)
    world = apply(case.t1w_to_reference, case.warp.to_t1w(points))
    voxels = apply(inverse, world)
    shape = case.reference.shape
    everywhere = np.ones(shape, dtype=bool)
    still = splines.resample(case.bold, case.affine, case.matrices)
    operator, _ = parcellation.build_operator(names, voxels, shape, everywhere)
    within = ((voxels >= 0) & (voxels <= np.array(shape) - 1)).all(axis=1)
    inside = np.bincount(names[~within], minlength=425)[1:] == 0
    n_compared = min(40, still.shape[3])
    ours = parcellation.parcellate(operator, still[..., :n_compared])[:, inside]
    resampled = np.array(
        [_label_means(still[..., t], voxels, names, 3) for t in range(n_compared)]
    )[:, inside]
    least = float(correlations(ours, resampled).min())
    yield Row(
        "W x BOLD",
        "least r of a parcel",
        least,
        ">= 0.9999",
        note=f"to cubic resampling at 2 mm, then label means; {inside.sum()} parcels in view",
    )
    masked, _ = parcellation.build_operator(names, voxels, shape, case.mask)
    series = {
        "ours": parcellation.parcellate(masked, still),
        "realigned, linear": np.array([_label_means(v, voxels, names, 1) for v in _volumes(still)]),
        "one shot, linear": one_shot(case, world, 1),
    }
    if not quick:
        series["one shot, cubic"] = one_shot(case, world, 3)
    truth = _truth(case)
    steady = slice(max(case.n_dummy, 3), None)
    known = np.all([np.isfinite(values).all(axis=0) for values in series.values()], axis=0) & inside
    r = {
        name: float(np.median(correlations(values[steady][:, known], truth[steady][:, known])))
        for name, values in series.items()
    }
    found = r.pop("ours")
    yield Row(
        "interpolation",
        "median r to true series",
        found,
        f">= {max(r.values()) - 0.01:.4f}",
        r,
        "true geometry, estimated motion, nothing removed; bound: best peer - 0.01",
    )


def _volumes(bold: np.ndarray) -> Iterator[np.ndarray]:
    return (bold[..., t] for t in range(bold.shape[3]))


def _label_means(
    volume: np.ndarray, voxels: np.ndarray, names: np.ndarray, order: int
) -> np.ndarray:
    values = ndimage.map_coordinates(volume, voxels.T, order=order, mode="mirror")
    sums = np.bincount(names, values, minlength=425)[1:]
    return np.asarray(sums / np.maximum(np.bincount(names, minlength=425)[1:], 1))


def one_shot(case: Case, world: np.ndarray, order: int) -> np.ndarray:
    """Series (T, 424), every raw volume sampled once at points (P, 3) of our reference."""
    inverse, (names, _) = np.linalg.inv(case.affine), case.atlas
    return np.array(
        [
            _label_means(volume, apply(inverse @ matrix, world), names, order)
            for volume, matrix in zip(_volumes(case.bold), case.matrices)
        ]
    )


def _truth(case: Case) -> np.ndarray:
    folder = case.folder / "bids" / "derivatives" / "phantom" / "sub-01" / "func"
    path = next(folder.glob("*_desc-truth_timeseries.tsv"))
    return pd.read_csv(path, sep="\t").to_numpy(float)
