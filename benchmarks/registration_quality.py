"""Registrations that succeed and registrations that fail, and what the numbers of quality say.

    python -m benchmarks.registration_quality [--heads 10] [--only good]

Heads are simulated by `brainlm phantom` and normalised to another average than the one that they
are warped from, if there is one; where the developers' reference data lie, two real people too. A
row is printed as soon as it is measured: the input, the error of the registration (mm, mean over
the brain), the numbers, whether the program warns, and whether it should. The exit code is 1 if a
registration failed without a warning, or succeeded with one. Two simulated heads, or one and its
mirror image, have the same folds, those of one symmetric template: no number tells them apart, and
their rows count as neither.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from brainlm_bids import phantom, resources
from brainlm_bids.phantom.head import Warp, load_warp
from brainlm_bids.preproc import steps
from brainlm_bids.preproc.affine import Matrix, about, apply, compose, invert
from brainlm_bids.preproc.motion import realign as motion
from brainlm_bids.preproc.motion import steady
from brainlm_bids.preproc.registration import quality
from brainlm_bids.preproc.registration.brain import brain_mask_epi
from brainlm_bids.preproc.registration.quality import Quality

SHARED = Path(os.environ.get("BRAINLM_BIDS_SHARED", "../shared"))
# A registration that is this near is right, and one that is further than the second wrong.
NEAR_MM, FAR_MM = 2.0, 4.0
# Normalisation, 95th percentile: other averages are met less well than one's own.
NEAR_P95_MM = 7.0
CUT_MM = 35.0
HEADER = (
    *("input", "error (mm)", "contrast (%)", "cost", "overlap", "Dice"),
    *("edge (mm²)", "correlation", "warning", "verdict"),
)

Image = tuple[NDArray[np.float32], Matrix]


@dataclass(frozen=True, eq=False)
class Head:
    """A T1w image (X, Y, Z), its affine, and what is made of it, once."""

    data: NDArray[np.float32]
    affine: Matrix

    @cached_property
    def anatomy(self) -> steps.Anatomy:
        return steps.prepare_t1w(self.data, self.affine)

    @cached_property
    def points(self) -> NDArray[np.float64]:
        """Points (P, 3) of the brain, mm."""
        return apply(self.affine, np.argwhere(self.anatomy.brain_mask)[::197])


@dataclass(frozen=True)
class Person:
    """A T1w image, a BOLD reference, and where the one is in the other.

    boldref: (X, Y, Z) and affine; truth: pull (4, 4), T1w to BOLD reference, None if it is
    not known; warp: of the template, None for a real person.
    """

    name: str
    t1w: Head
    boldref: Image
    truth: Matrix | None = None
    warp: Warp | None = None

    @cached_property
    def brain(self) -> NDArray[np.bool_]:
        return brain_mask_epi(*self.boldref)

    def coregister(self) -> steps.Coregistration:
        (data, affine), head = self.boldref, self.t1w
        fixed = head.anatomy.t1w, head.affine, head.anatomy.brain_mask
        return steps.coregister(data, affine, self.brain, *fixed)


@dataclass(frozen=True)
class Outcome:
    """A row of the table; right: None where it is neither right nor wrong."""

    name: str
    error: float
    quality: Quality
    right: bool | None

    @property
    def warned(self) -> bool:
        return bool(quality.registration_warnings(self.quality))

    @property
    def holds(self) -> bool:
        return self.right is None or self.right != self.warned

    def cells(self) -> tuple[str, ...]:
        found = self.quality
        numbers = (found.contrast, found.cost, found.overlap, found.dice, found.edge)
        numbers += (found.correlation,)
        texts = ("" if value is None else f"{value:.3g}" for value in numbers)
        verdict = ("" if self.right is None else "right ") + ("ok" if self.holds else "MISSED")
        if self.right is False:
            verdict = "wrong " + ("ok" if self.holds else "MISSED")
        return (self.name, f"{self.error:.2f}", *texts, "yes" if self.warned else "no", verdict)


# --- people ----------------------------------------------------------------------------------


@cache
def simulated(folder: Path, seed: int) -> Person:
    """A person of the phantom: the warped template with its skull, coil, noise and drop-out."""
    place = folder / f"head{seed}"
    if not place.exists():
        phantom.write_phantom(
            place, n_subjects=1, n_volumes=8, motion="none", non_steady=False, seed=seed
        )
    return _read_simulated(place, seed)


def _read_simulated(folder: Path, seed: int) -> Person:
    label = "sub-01"
    truth = folder / "derivatives" / "phantom" / label
    geometry = np.load(next((truth / "func").glob("*_geometry.npz")))
    bold, affine = _image(next((folder / label / "func").glob("*_bold.nii.gz")))
    t1w = Head(*_image(folder / label / "anat" / f"{label}_T1w.nii.gz"))
    warp = load_warp(next((truth / "anat").glob("*_xfm.npz")))
    boldref = bold.mean(axis=3), affine
    return Person(f"simulated {seed}", t1w, boldref, invert(geometry["bold_to_t1w"]), warp)


def real_people() -> list[Person]:
    """The people of the developers' reference data; none where it is not."""
    found = []
    for name in ("studyforrest", "ds000005-truncated"):
        folder = SHARED / "data" / name
        if not folder.is_dir():
            continue
        bold, affine = _image(next(folder.glob("sub-*/func/*_bold.nii.gz")))
        n_dummy = steady.detect_dummy_volumes(steady.volumes_summary(bold))
        reference = motion.reference_volume(bold, n_dummy, affine=affine)
        t1w = Head(*_image(next(folder.glob("sub-*/anat/*_T1w.nii.gz"))))
        found.append(Person(name, t1w, (reference, affine)))
    return found


def _image(path: Path) -> Image:
    image = nib.Nifti1Image.from_filename(path)
    return np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine)


# --- what may happen to them -------------------------------------------------------------------


def turned(person: Person, name: str, rotation: NDArray[np.float64]) -> Person:
    """A BOLD reference whose header has it turned about its middle, by (3, 3)."""
    data, affine = person.boldref
    turn = about(apply(affine, (np.array(data.shape) - 1) / 2), rotation)
    truth = None if person.truth is None else compose(turn, person.truth)
    boldref = data, compose(turn, affine)
    return replace(person, name=f"{person.name}, header {name}", boldref=boldref, truth=truth)


def shaded(person: Person, name: str, factor: float, axis: int) -> Person:
    """A coil at one side: `factor` times as bright there as at the other end of the volume."""
    data, affine = person.boldref
    shape = [1, 1, 1]
    shape[axis] = data.shape[axis]
    profile = np.geomspace(1, factor, data.shape[axis]).reshape(shape) / np.sqrt(factor)
    boldref = (data * profile).astype(np.float32), affine
    return replace(person, name=f"{person.name}, {name} x{factor:g}", boldref=boldref)


def of_two(first: Person, second: Person) -> Person:
    """The T1w image of one person with the BOLD reference of another."""
    name = f"T1w of {first.name}, BOLD of {second.name}"
    return replace(first, name=name, boldref=second.boldref, truth=None)


def without_top(person: Person, millimetres: float) -> Person:
    """A T1w image without its top, counted from the top of the brain."""
    data, affine = person.t1w.data, person.t1w.affine
    height = apply(affine, np.argwhere(person.t1w.anatomy.brain_mask))[:, 2].max()
    index = np.argwhere(np.ones(data.shape, dtype=bool))
    kept = (apply(affine, index)[:, 2] < height - millimetres).reshape(data.shape)
    slices = tuple(slice(low, high + 1) for low, high in zip(*_box(kept)))
    cut = affine.copy()
    cut[:3, 3] = apply(affine, [s.start for s in slices])
    name = f"{person.name}, T1w without the top {millimetres:g} mm"
    return replace(person, name=name, t1w=Head(data[slices], cut))


def _box(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    index = np.argwhere(mask)
    return index.min(axis=0), index.max(axis=0)


TURNS = {
    "turned 90 degrees": np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]),
    "on its face": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "upside down": np.diag([-1.0, 1, -1]),
    "back to front": np.diag([-1.0, -1, 1]),
    "left to right": np.diag([-1.0, 1, 1]),
}


# --- rows ---------------------------------------------------------------------------------------


def coregistered(person: Person, *, same: bool = True, alike: bool = False) -> Outcome:
    """How BOLD reference and T1w image are registered; same: of one person; alike: same folds."""
    found = person.coregister()
    error, right = np.nan, None if same or alike else False
    if same and person.truth is not None:
        points = person.t1w.points
        apart = apply(found.matrix, points) - apply(person.truth, points)
        error = float(np.linalg.norm(apart, axis=1).mean())
        right = True if error < NEAR_MM else False if error > FAR_MM and not alike else None
    return Outcome(person.name, error, found.quality, right)


def normalised(person: Person, *, whole: bool = True) -> Outcome:
    """How a T1w image is normalised; whole: it shows the whole brain."""
    template = resources.find_template(offline=True)
    data, affine = template.load_t1w()
    mask = template.load_brain_mask()[0]
    anatomy, grid = person.t1w.anatomy, (data, affine, mask)
    found = steps.normalise(anatomy.t1w, person.t1w.affine, anatomy.brain_mask, *grid)
    error, right = np.nan, whole
    if person.warp is not None:
        points = apply(affine, np.argwhere(mask)[::23])
        apart = found.transform(points) - person.warp.to_t1w(points)
        error = float(np.percentile(np.linalg.norm(apart, axis=1), 95))
        right = error < NEAR_P95_MM and whole
    return Outcome(f"{person.name}, T1w to template (p95)", error, found.quality, right)


def with_own_truth(person: Person) -> Person:
    """A real person whose truth is the pose that the boundary gives."""
    return replace(person, truth=person.coregister().matrix)


Job = Callable[[], Outcome]


def jobs(folder: Path, n_heads: int) -> Iterator[tuple[str, Job]]:
    """The rows of the table, each to be measured when it is called."""
    real = [with_own_truth(person) for person in real_people()]
    for seed in range(n_heads):
        yield "good", lambda seed=seed: coregistered(simulated(folder, seed))
        yield "good", lambda seed=seed: normalised(simulated(folder, seed))
    for person in real:
        yield "good", partial(coregistered, person)
        yield "good", partial(normalised, person)
    first, *others = [simulated(folder, seed) for seed in range(min(4, n_heads))]
    pairs = [(first, other) for other in others]
    pairs += [pair for person in real for pair in ((person, first), (first, person))]
    pairs += zip(real, real[::-1])
    for pair in pairs:
        alike = all(person.warp is not None for person in pair)
        yield "people", partial(coregistered, of_two(*pair), same=False, alike=alike)
    for person in [*real, first]:
        for name, rotation in TURNS.items():
            alike = person.warp is not None and name == "left to right"
            yield "header", partial(coregistered, turned(person, name, rotation), alike=alike)
        for side, axis, factor in (("front", 1, 3), ("front", 1, 9), ("left", 0, 9)):
            yield "coil", partial(coregistered, shaded(person, f"coil at the {side}", factor, axis))
        cut = without_top(person, CUT_MM)
        yield "cut", partial(normalised, cut, whole=False)
        yield "cut", partial(coregistered, cut)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=int, default=10, help="simulated heads")
    parser.add_argument("--only", help="good, people, header, coil or cut")
    parser.add_argument("--folder", type=Path, help="keep the simulated heads here")
    options = parser.parse_args(arguments)
    for line in (HEADER, tuple("---" for _ in HEADER)):
        print("| " + " | ".join(line) + " |", flush=True)
    missed = 0
    with TemporaryDirectory() as folder:
        for kind, job in jobs(options.folder or Path(folder), options.heads):
            if options.only in (None, kind):
                row = job()
                missed += not row.holds
                print("| " + " | ".join(row.cells()) + " |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
