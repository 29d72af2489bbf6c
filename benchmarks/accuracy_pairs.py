"""The field of two images of opposite polarity against simulations, beside unpile's defaults.

Simulated apart from the phantom and from the code: the signal of a head is taken at four places per
voxel and put where the field shows it. The field is that of balls of air below the brain, less a
linear shim; its peak is the 99.9th percentile in the brain. Errors are those of the displacement in
the brain, mm. A head that moves along the phase axis adds a constant, which is taken out there.
Times are those of one core. unpile takes minutes per pair; `--quick` leaves it out.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from benchmarks.table import Row
from brainlm_bids import phantom
from brainlm_bids.phantom.acquisition import SWITCHES, Acquisition
from brainlm_bids.phantom.head import epi_tissues, subject_warp
from brainlm_bids.phantom.scene import GREY_LEVEL, Scene, bold_affine, build_scene
from brainlm_bids.preproc.affine import about, apply, compose, grid_points, invert, voxel_sizes
from brainlm_bids.preproc.distortion.field import PhaseEncoding
from brainlm_bids.preproc.distortion.pair import PairFieldMap, field_of_pair
from brainlm_bids.preproc.motion.realign import reference_volume
from brainlm_bids.preproc.registration.brain import brain_mask_epi

VOXEL, READOUT = 3.5, 0.04
NOISE = 0.015  # of grey matter, sd of each part of the signal
PER_VOXEL = 4
OUTSIDE = 6  # voxels beyond the field of view from which signal may come
# Middle in MNI and radius, mm: sphenoid, ethmoid and frontal sinus, both ears
AIR = (
    *((0.0, 40.0, -38.0, 16.0), (0.0, 55.0, -32.0, 14.0), (0.0, 65.0, -10.0, 9.0)),
    *((58.0, -22.0, -36.0, 12.0), (-58.0, -22.0, -36.0, 12.0)),
)
BOTH = (PhaseEncoding(1, 1, READOUT), PhaseEncoding(1, -1, READOUT))
MEAN, P95, SECONDS = "<= 0.3", "<= 1.0", "<= 15"
Values = Callable[[np.ndarray], np.ndarray]  # of points (P, 3), RAS+ mm


@dataclass(frozen=True)
class Subject:
    """A head: its signal and field anywhere, and the voxels (X, Y, Z) of its brain."""

    signal: Values
    hertz: Values
    brain: np.ndarray
    affine: np.ndarray
    level: float  # of the signal of grey matter


@dataclass(frozen=True)
class Pair:
    """Two images, and the true field (X, Y, Z) in the brain."""

    images: tuple[np.ndarray, np.ndarray]
    encodings: tuple[PhaseEncoding, PhaseEncoding]
    affine: np.ndarray
    hertz: np.ndarray
    brain: np.ndarray
    affine_second: np.ndarray | None = None
    moved: bool = False


@dataclass(frozen=True)
class Peer:
    """What unpile makes of a pair."""

    hertz: np.ndarray
    seconds: float
    options: tuple[str, ...] = field(default=())


def rows(seed: int, quick: bool) -> Iterator[Row]:
    """Measure the rows of pairs of opposite polarity."""
    subject = simulated_subject(seed)
    for peak in (4.0, 8.0, 12.0):
        yield from measured(
            f"pair, {peak:.0f} mm", pair_of(_scaled(subject, peak), seed), not quick
        )
    eight = _scaled(subject, 8.0)
    yield from measured("pair, 6 % noise", pair_of(eight, seed, noise=4 * NOISE), False)
    moved = pair_of(eight, seed, motion=_motion(eight, 1.0, 1.0))
    yield from measured("pair, moved 1 mm and 1°", moved, not quick, ("--blip-pose",))
    times = (BOTH[0], replace(BOTH[1], readout=0.03))
    yield from measured("pair, read-out 40 and 30 ms", pair_of(eight, seed, encodings=times), False)
    echoes = pair_of(eight, seed, echo_time=0.03)
    yield from measured("pair, gradient echoes", echoes, False, bounds=(MEAN, P95))
    with TemporaryDirectory() as folder:
        yield from measured(
            "pair of the phantom, 8 mm", phantom_pair(Path(folder), seed), not quick
        )
    if (real := real_subject()) is not None:
        yield from measured("pair of a real image, 8 mm", pair_of(_scaled(real, 8.0), seed), False)
    yield from two_heads(eight, seed)


def measured(
    stage: str,
    pair: Pair,
    with_peer: bool,
    options: tuple[str, ...] = (),
    bounds: tuple[str, str] = (MEAN, P95),
) -> Iterator[Row]:
    """Rows of one pair."""
    found, seconds = ours(pair)
    error, peers = errors(pair, found.hertz), [{}, {}, {}]
    note = f"gradient echoes: {'yes' if found.gradient_echo else 'no'}"
    limit = SECONDS
    if with_peer:
        peer = unpile_field(pair, options)
        theirs = errors(pair, peer.hertz)
        numbers = theirs.mean(), np.percentile(theirs, 95), peer.seconds
        peers = [{" ".join(("unpile", *options)): float(number)} for number in numbers]
        bounds = f"<= {min(0.3, numbers[0]):.3f}", f"<= {min(1.0, numbers[1]):.3f}"
        limit = f"<= {min(15.0, peer.seconds / 5):.1f}"
    yield Row(stage, "mean (mm)", float(error.mean()), bounds[0], peers[0], note)
    yield Row(stage, "95th percentile (mm)", float(np.percentile(error, 95)), bounds[1], peers[1])
    yield Row(stage, "core (s)", seconds, limit, peers[2], f"{pair.images[0].shape}")


def errors(pair: Pair, hertz: np.ndarray) -> np.ndarray:
    """Of the displacement in the brain, mm."""
    length = voxel_sizes(pair.affine)[pair.encodings[0].axis]
    error = (hertz - pair.hertz)[pair.brain] * pair.encodings[0].readout * length
    return np.abs(error - np.median(error) if pair.moved else error)


def ours(pair: Pair) -> tuple[PairFieldMap, float]:
    """The field, and the seconds of one core."""
    start = time.process_time()
    found = field_of_pair(
        *pair.images, pair.affine, *pair.encodings, affine_second=pair.affine_second
    )
    return found, time.process_time() - start


def unpile_field(pair: Pair, options: tuple[str, ...]) -> Peer:
    """What unpile makes of a pair of the same read-out time, with the mask that we use."""
    import unpile

    still = [
        image if image.ndim == 3 else reference_volume(image, 0, affine=pair.affine)
        for image in pair.images
    ]
    mask = brain_mask_epi((still[0] + still[1]) / 2, pair.affine)
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.nii.gz" for name in ("first", "second", "mask")]
        for path, image in zip(paths, (*still, mask.astype(np.float32))):
            nib.Nifti1Image(np.asarray(image, np.float32), pair.affine).to_filename(path)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        fit = unpile.fit(
            *(paths[0], paths[2], Path(folder) / "out"),
            pe_dir=pair.encodings[0].direction,
            total_readout_time=pair.encodings[0].readout,
            reverse_epi=paths[1],
            threads=1,
            extra=options,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        hertz = np.asarray(nib.Nifti1Image.from_filename(fit.field_hz).dataobj, np.float64)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Peer(hertz, seconds, options)


def two_heads(subject: Subject, seed: int) -> Iterator[Row]:
    """What is left of the difference between the images of two people must say so."""
    images, encodings = pair_of(subject, seed).images, BOTH
    other = pair_of(_scaled(simulated_subject(seed + 1), 8.0), seed).images
    one = field_of_pair(*images, subject.affine, *encodings)
    two = field_of_pair(images[0], other[1], subject.affine, *encodings)
    left = {"before": one.residual_before}
    yield Row("pair of one head", "left of the signal", one.residual_after, "<= 0.1", left)
    left = {"before": two.residual_before}
    yield Row("pair of two heads", "left of the signal", two.residual_after, ">= 0.1", left)


# --- simulation -------------------------------------------------------------------------------


def simulated_subject(seed: int) -> Subject:
    """A head of the phantom, with the field of the air below its brain."""
    switches = {name: name != "dropout" for name in SWITCHES}
    acquisition = Acquisition(1, 2.0, VOXEL, "none", seed, switches)
    warp = subject_warp(np.random.default_rng(seed))
    centre = warp.to_t1w(np.array([[0.0, -18.0, 22.0]]))[0].round(1)
    affine = bold_affine(acquisition.shape, VOXEL, centre)
    scene: Scene = build_scene(warp, np.eye(4), affine, acquisition)
    points = grid_points(acquisition.shape, affine)
    brain = epi_tissues(warp.to_template(points).T)[0].sum(0) > 0.9
    to_grid = compose(scene.voxel_to_grid, invert(affine))

    def signal(at: np.ndarray) -> np.ndarray:
        places = apply(to_grid, at).T
        return ndimage.map_coordinates(scene.base, places, order=3, prefilter=False)

    air = warp.to_t1w(np.array(AIR)[:, :3])
    hertz = shimmed(air, np.array(AIR)[:, 3], points[brain])
    return Subject(signal, hertz, brain.reshape(acquisition.shape), affine, GREY_LEVEL)


def real_subject() -> Subject | None:
    """A real run's reference as if it were not distorted; None without the developers' data."""
    shared = Path(os.environ.get("BRAINLM_BIDS_SHARED", "../shared"))
    found = sorted(shared.glob("data/studyforrest/sub-*/func/*_bold.nii.gz"))
    if not found:
        return None
    image = nib.Nifti1Image.from_filename(found[0])
    affine = np.asarray(image.affine, np.float64)
    data = np.asarray(image.dataobj[..., :12], np.float32)
    still = reference_volume(data, 2, affine=affine)
    coefficients = ndimage.spline_filter(still.astype(np.float64), order=3, mode="mirror")
    brain = brain_mask_epi(still, affine)
    back = invert(affine)

    def signal(at: np.ndarray) -> np.ndarray:
        places = apply(back, at).T
        return ndimage.map_coordinates(
            coefficients, places, order=3, prefilter=False, mode="constant"
        )

    points = apply(affine, np.argwhere(brain))
    # the air lies as in MNI, whose brain has its middle about here
    air = np.array(AIR)[:, :3] - [0.0, -18.0, 8.0] + points.mean(axis=0)
    hertz = shimmed(air, np.array(AIR)[:, 3], points)
    return Subject(signal, hertz, brain, affine, float(np.median(still[brain])))


def shimmed(centres: np.ndarray, radii: np.ndarray, brain: np.ndarray) -> Values:
    """The field of balls of air, without its linear part in the brain, and with a peak of 1."""

    def dipoles(points: np.ndarray) -> np.ndarray:
        total = np.zeros(len(points))
        for centre, radius in zip(centres, radii):
            away = points - centre
            square = (away**2).sum(axis=1)
            # as of a ball outside of it, and smooth inside
            total += radius**3 * (3 * away[:, 2] ** 2 - square) / (square + radius**2) ** 2.5
        return total

    def linear(points: np.ndarray) -> np.ndarray:
        return np.column_stack([np.ones(len(points)), (points - brain.mean(axis=0)) / 50])

    shim = np.linalg.lstsq(linear(brain), dipoles(brain), rcond=None)[0]
    peak = np.percentile(np.abs(dipoles(brain) - linear(brain) @ shim), 99.9)
    return lambda points: (dipoles(points) - linear(points) @ shim) / peak


def _scaled(subject: Subject, peak: float) -> Subject:
    """A subject whose field has a peak in mm."""
    factor = peak / voxel_sizes(subject.affine)[1] / READOUT
    return replace(subject, hertz=lambda points: factor * subject.hertz(points))


def _motion(subject: Subject, shift: float, degrees: float) -> np.ndarray:
    turn = Rotation.from_rotvec(np.radians(degrees * np.array([1.0, -1.0, 1.0]))).as_matrix()
    middle = apply(subject.affine, np.argwhere(subject.brain)).mean(axis=0)
    return about(middle, turn, shift * np.array([1.0, 1.0, -1.0]))


def pair_of(
    subject: Subject,
    seed: int,
    *,
    noise: float = NOISE,
    motion: np.ndarray | None = None,
    encodings: tuple[PhaseEncoding, PhaseEncoding] = BOTH,
    echo_time: float = 0.0,
) -> Pair:
    """Two images of a subject, who moves between the two."""
    rng = np.random.default_rng(seed)
    images = []
    for encoding, pose in zip(encodings, (np.eye(4), motion)):
        image = acquired(subject, encoding, np.eye(4) if pose is None else pose, echo_time)
        parts = noise * subject.level * rng.standard_normal((2, *image.shape))
        images.append(np.hypot(image + parts[0], parts[1]).astype(np.float32))
    hertz = subject.hertz(grid_points(subject.brain.shape, subject.affine))
    truth = hertz.reshape(subject.brain.shape)
    both = images[0], images[1]
    return Pair(both, encodings, subject.affine, truth, subject.brain, moved=motion is not None)


def acquired(
    subject: Subject, encoding: PhaseEncoding, motion: np.ndarray, echo_time: float
) -> np.ndarray:
    """An image (X, Y, Z) of a head that has moved; gradient echoes with a T2* of 45 ms."""
    shape, axis = subject.brain.shape, encoding.axis
    fine = [n + 2 * OUTSIDE if k == axis else n for k, n in enumerate(shape)]
    fine[axis] *= PER_VOXEL
    index = np.indices(fine).reshape(3, -1).T.astype(float)
    index[:, axis] = (index[:, axis] + 0.5) / PER_VOXEL - 0.5 - OUTSIDE
    to_head = compose(invert(motion), subject.affine)
    points = apply(to_head, index)
    moved = encoding.voxels(subject.hertz(points))
    amount = np.maximum(subject.signal(points), 0)
    if echo_time:
        step = 0.1 * to_head[:3, axis]
        near = subject.hertz(points + step) - subject.hertz(points - step)
        stretch = np.clip(1 + encoding.voxels(near / 0.2), 0.25, 4.0)
        amount *= np.exp(-echo_time / 0.045 * (1 / stretch - 1))
    # each sample is a box as wide as a voxel, which it leaves to the two voxels that it covers
    place = index[:, axis] + moved
    low = np.floor(place).astype(int)
    total = np.zeros(shape)
    for voxel, share in ((low, 1 - (place - low)), (low + 1, place - low)):
        kept = (voxel >= 0) & (voxel < shape[axis])
        target = index[kept].astype(int)
        target[:, axis] = voxel[kept]
        flat = np.ravel_multi_index(tuple(target.T), shape)
        total += np.bincount(flat, (amount * share)[kept], total.size).reshape(shape)
    return total / PER_VOXEL


def phantom_pair(folder: Path, seed: int) -> Pair:
    """The pair of a subject of the phantom: three volumes of each polarity; the head moves."""
    phantom.write_phantom(
        folder, n_subjects=1, n_volumes=4, seed=seed, distortion=8.0, fieldmaps=("pair",)
    )
    images = {}
    for path in sorted(folder.glob("sub-01/fmap/*_epi.nii.gz")):
        image = nib.Nifti1Image.from_filename(path)
        direction = next(d for d, name in (("j", "dir-PA"), ("j-", "dir-AP")) if name in path.name)
        images[direction] = np.asarray(image.dataobj, np.float32), image.affine
    truth = nib.Nifti1Image.from_filename(
        next(folder.glob("derivatives/phantom/sub-01/fmap/*_desc-truth_fieldmap.nii.gz"))
    )
    (first, affine), (second, other) = images["j"], images["j-"]
    brain = brain_mask_epi(reference_volume(first, 0, affine=affine), affine)
    hertz = np.asarray(truth.dataobj, np.float64)
    return Pair((first, second), BOTH, affine, hertz, brain, affine_second=other, moved=True)
