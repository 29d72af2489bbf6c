"""The first step of a multi-echo run: motion of its first echo, and the echoes as one series."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brainlm_bids.errors import UserError
from brainlm_bids.preproc.affine import Matrix
from brainlm_bids.preproc.denoising import volumes
from brainlm_bids.preproc.denoising.aroma import removal_matrix
from brainlm_bids.preproc.echoes import Decay, combine, fit_decay, weights_of
from brainlm_bids.preproc.motion import splines, view
from brainlm_bids.preproc.motion.sbref import SingleBand
from brainlm_bids.preproc.steps.functional import (
    MAX_BAD_VOLUMES,
    Mask,
    Realigned,
    SliceTimes,
    check_length,
    in_one_time,
    realign,
)
from brainlm_bids.preproc.usable import check_varies, fill_from_neighbours, unusable_voxels

Echo = NDArray[np.float32]
# Voxels that are denoised at a time.
_CHUNK = 50_000
Keep = Callable[[Echo], Echo]


@dataclass(frozen=True)
class TeDependence:
    """Independent components of several echoes, and which of them do not depend on the echo time.

    Attributes
    ----------
    mixing
        (T', K) their time courses, of the good volumes of the steady state.
    noise
        (K,) whether a component is noise.
    version
        Of tedana, which found them.
    """

    mixing: NDArray[np.float64]
    noise: Mask
    version: str = ""

    @property
    def is_usable(self) -> bool:
        """Whether some component is not noise; nothing is removed if all are."""
        return not self.noise.all()


Decompose = Callable[[Sequence[Echo], Mask, NDArray[np.intp]], TeDependence]


@dataclass(frozen=True)
class EchoSummary:
    """What the echoes of a run show of it, in few numbers.

    Attributes
    ----------
    t2star
        Of the brain, s, see `Decay.median`.
    plausible
        Whether that is the T2* of a brain; if not, the echo times are probably wrong.
    shares
        (E + 1,) share of the brain's voxels in which 0, 1, … E echoes have signal.
    n_components, n_noise
        Components of tedana, and how many of them it rejected; None where it was not used.
    version
        Of tedana.
    """

    t2star: float
    plausible: bool
    shares: NDArray[np.float64]
    n_components: int | None = None
    n_noise: int | None = None
    version: str | None = None


@dataclass(frozen=True)
class RealignedEchoes(Realigned):
    """A multi-echo run without head motion, its echoes combined.

    Attributes
    ----------
    decay
        T2* and the number of echoes with signal, of every voxel.
    summary
        What of that is recorded.
    """

    decay: Decay | None = None
    summary: EchoSummary | None = None


def realign_echoes(
    echoes: Iterable[Echo],
    affine: Matrix,
    echo_times: Sequence[float],
    *,
    n_dummy: int | None = None,
    max_bad_volumes: float = MAX_BAD_VOLUMES,
    device: str = "cpu",
    slices: SliceTimes | None = None,
    sbref: SingleBand | None = None,
    keep: Keep | None = None,
    names: Sequence[str] = (),
    decompose: Decompose | None = None,
) -> RealignedEchoes:
    """Remove head motion from the echoes of a run, and combine them.

    The motion is that of the first echo, in which the signal is highest; every echo is resampled by
    it. A volume that is bad in one echo is bad in all.

    Parameters
    ----------
    echoes
        E runs (X, Y, Z, T), raw, the shortest echo time first. Each is realigned in place; they are
        asked for one after the other, so that one at a time need be in memory.
    affine
        (4, 4) voxel to RAS+ mm, of all.
    echo_times
        (E,) s, ascending.
    n_dummy, max_bad_volumes, device, slices, sbref
        See `realign`.
    keep
        Puts a realigned echo aside, and returns an array from which its volumes can be read, such
        as one on disk; None: the echoes stay in memory.
    names
        (E,) what messages call the echoes; none: their numbers.
    decompose
        Finds components that are noise in the realigned echoes, their brain (X, Y, Z) and the
        volumes to use (T',), as tedana does. They are removed from the combination; None: nothing
        is.

    Returns
    -------
    RealignedEchoes
        The combined run, with the reference and the brain of the first echo.

    Raises
    ------
    RunSkipped
        If fewer than 20 volumes are left.
    UserError
        As `realign`, for any of the echoes, and if their shapes differ.
    """
    source = iter(echoes)
    names = names or [f"echo {number}" for number in range(1, len(echo_times) + 1)]
    keep = keep or _in_memory
    raw = next(source)
    with _about(names[0]):
        run: Realigned = realign(
            raw,
            affine,
            n_dummy=n_dummy,
            max_bad_volumes=max_bad_volumes,
            device=device,
            slices=slices,
            sbref=sbref,
            out=raw,
        )
    kept = [keep(run.bold)]
    run = replace(run, bold=kept[0])
    del raw
    for name, echo in zip(names[1:], source, strict=True):
        with _about(name):
            run = _follow(run, echo, affine, slices)
        kept.append(keep(echo))
        del echo
    with _about(names[0]):
        return _combined(run, kept, echo_times, max_bad_volumes, decompose)


@contextlib.contextmanager
def _about(name: str) -> Iterator[None]:
    """Prefix errors with the echo that they are about."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"{name}: {error}") from error


def _in_memory(echo: Echo) -> Echo:
    return echo


def _follow(run: Realigned, echo: Echo, affine: Matrix, slices: SliceTimes | None) -> Realigned:
    """Resample another echo, in place, by a run's motion; the run with what is bad in this one."""
    if echo.shape != run.bold.shape:
        raise UserError(f"has the shape {echo.shape}, and the first echo {run.bold.shape}")
    check_varies(echo)
    matrices = run.motion.matrices
    assert matrices is not None
    bad = volumes.find_bad_volumes(echo)
    good = bad == ""
    unusable = unusable_voxels(echo, good)
    if (run.brain_mask & unusable).any():
        fill_from_neighbours(echo, run.brain_mask & unusable, unusable)
    if slices is not None:
        known = None if good.all() else good
        in_one_time(echo, slices, run.motion.n_dummy, known, in_place=True)
    splines.resample(echo, affine, matrices, out=echo)
    view.fill_unseen(echo, matrices, affine, run.brain_mask, good)
    # left without a value above 0, the voxels count as without signal in this echo
    echo[unusable] = 0
    motion = run.motion
    if not good.all():
        before = np.full(len(bad), "") if motion.reasons is None else motion.reasons
        motion = replace(motion, reasons=np.where(before != "", before, bad))
    seen = run.seen
    if seen is not None:
        seen = seen & ~ndimage.binary_dilation(unusable, iterations=2)
    return replace(run, motion=motion, seen=seen)


def _combined(
    run: Realigned,
    echoes: Sequence[Echo],
    echo_times: Sequence[float],
    max_bad_volumes: float,
    decompose: Decompose | None,
) -> RealignedEchoes:
    """The optimal combination of realigned echoes; what is bad in one of them is interpolated."""
    reasons, n_dummy, n_volumes = run.motion.reasons, run.motion.n_dummy, run.bold.shape[3]
    good, usable = run.motion.good, np.arange(n_volumes)
    if reasons is not None and good is not None:
        volumes.check_share(reasons, max_bad_volumes)
        check_length(n_volumes, n_dummy, good)
        usable = np.flatnonzero(good)
    usable = usable[usable >= n_dummy]
    decay = fit_decay(echoes, echo_times, run.brain_mask, usable)
    bold = combine(echoes, weights_of(decay, echo_times))
    counts = np.bincount(decay.n_good[run.brain_mask], minlength=len(echoes) + 1)
    summary = EchoSummary(decay.median, decay.is_plausible, counts / counts.sum())
    if decompose is not None:
        found = decompose(echoes, run.brain_mask, usable)
        _remove(bold, found, usable)
        numbers = len(found.noise), int(found.noise.sum()), found.version
        summary = replace(summary, n_components=numbers[0], n_noise=numbers[1], version=numbers[2])
    if good is not None:
        volumes.fill_volumes(bold, good)
    return RealignedEchoes(bold, run.boldref, run.brain_mask, run.motion, run.seen, decay, summary)


def _remove(bold: Echo, found: TeDependence, usable: NDArray[np.intp]) -> None:
    """Remove the noise part of a fit by all components, in place, as tedana does."""
    matrix = removal_matrix(found.mixing, found.noise, "nonaggr").astype(np.float32)
    # a view: arrays of the combination have the voxels of a volume next to each other
    voxels = bold.reshape(-1, bold.shape[3], order="F")
    for start in range(0, len(voxels), _CHUNK):
        part = voxels[start : start + _CHUNK, usable]
        middle = part.mean(axis=1, keepdims=True)
        voxels[start : start + _CHUNK, usable] = (part - middle) @ matrix.T + middle
