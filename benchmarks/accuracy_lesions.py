"""Lesions, and heads unlike the template's: what a mask is worth, and where registration ends.

A head is simulated with and without a lesion in one hemisphere: a ball of other tissue, 40 mm wide,
or a cavity of 80 mm that is open to the skull. How far the parcels move because of it is measured
with its mask and without it, in millimetres of the T1w image: the mean over each parcel's voxels,
then the 95th percentile over parcels. Then heads are as small as an infant's, with young contrasts,
old, or stripped of their skulls; their errors are distances to the truth. What is far from the
truth has to be warned about, and what is near it must not be.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.deformed_heads import Build, Deformed, make, with_lesion
from benchmarks.table import Row
from brainlm_bids import resources
from brainlm_bids.preproc import steps
from brainlm_bids.preproc.affine import Matrix, Points, apply, labelled_points
from brainlm_bids.preproc.registration import quality

# Parcels are near a lesion from 5 to 40 mm from its rim, and far from it beyond.
NEAR_MM, FAR_MM = 5.0, 40.0
# A tenth of what happens without the mask is asked for, but no less than a twentieth of a voxel.
FLOOR_MM = 0.1
# A registration is right if the 95th percentile of its errors is below this, mm.
RIGHT_MM = 7.0

Template = tuple[NDArray[np.float32], Matrix, NDArray[np.bool_]]
Method = Literal["fast", "syn"]


class Ball(NamedTuple):
    """A lesion: (3,) place in template space and radius, mm; intensity relative to white matter."""

    place: tuple[float, float, float]
    radius: float
    level: float


LESIONS = {
    "dark ball": Ball((34.0, -20.0, 20.0), 20.0, 0.2),
    "bright ball": Ball((34.0, -20.0, 20.0), 20.0, 1.3),
    "open cavity": Ball((55.0, -25.0, 30.0), 40.0, 0.05),
}
HEADS = {
    "adult": Build(),
    "scale 0.72": Build(scale=0.72),
    "scale 0.72, stripped": Build(scale=0.72, stripped=True),
    "scale 0.72, half a year": Build(scale=0.72, contrast="half a year"),
    "scale 0.72, newborn": Build(scale=0.72, contrast="newborn"),
    "old": Build(ventricles=1.7, brain=0.96),
    "old, stripped": Build(ventricles=1.7, brain=0.96, stripped=True),
    "stripped": Build(stripped=True),
}
QUICK = ("scale 0.72, stripped", "old")


def rows(seed: int, quick: bool) -> Iterator[Row]:
    """Measure the rows of lesions and of unusual heads."""
    found = resources.find_template(offline=True)
    template = (*found.load_t1w(), found.load_brain_mask()[0])
    kinds = ("dark ball",) if quick else tuple(LESIONS)
    yield from lesion_rows(make(seed, Build()), template, kinds)
    for name in QUICK if quick else HEADS:
        yield from head_rows(name, make(seed, HEADS[name]), template)


def lesion_rows(
    head: Deformed, template: Template, kinds: tuple[str, ...], method: Method = "fast"
) -> Iterator[Row]:
    """How far parcels move because of a lesion, with its mask and without."""
    labels, grid = resources.approximate_atlas()
    parcels, points = labelled_points(labels.astype(int), grid)
    parcels, points = parcels[::7], points[::7]
    brain = steps.prepare_t1w(head.data, head.affine).brain_mask
    healthy = _normalised(head, template, method=method).transform(points)
    for kind in kinds:
        lesion = LESIONS[kind]
        sick, ball = with_lesion(head, *lesion)
        centre = head.to_t1w(np.array([lesion.place]))[0]
        away = np.linalg.norm(head.to_t1w(points) - centre, axis=1) - lesion.radius
        moved = {
            name: np.linalg.norm(
                _normalised(sick, template, cut, method).transform(points) - healthy, axis=1
            )
            # lesions are drawn within the skull
            for name, cut in (("with", ball & brain), ("without mask", None))
        }
        yield from _moved_rows(kind, parcels, away, moved)


def _moved_rows(
    kind: str,
    parcels: NDArray[np.int64],
    away: NDArray[np.float64],
    moved: dict[str, NDArray[np.float64]],
) -> Iterator[Row]:
    distance = _means(away, parcels)
    near = (distance > NEAR_MM) & (distance <= FAR_MM)
    for where, there in (("near", near), ("far", distance > FAR_MM)):
        ours, without = (
            float(np.percentile(_means(one, parcels)[there], 95)) for one in moved.values()
        )
        bound = f"<= {max(without / 10, FLOOR_MM):.3g}"
        note = f"{there.sum()} parcels, {'5 to 40' if where == 'near' else 'over 40'} mm away"
        measure = f"parcels {where}, moved by it, p95 (mm)"
        yield Row(f"lesion: {kind}", measure, ours, bound, {"without mask": without}, note)


def _means(values: NDArray[np.float64], parcels: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.bincount(parcels, values)[1:] / np.bincount(parcels)[1:]


@dataclass(frozen=True)
class Outcome:
    """How the registration of a head ended.

    Attributes
    ----------
    median, p95
        Of the errors over the brain, mm.
    numbers
        By which the program judges it.
    method
        How the brain was found.
    """

    median: float
    p95: float
    numbers: quality.Quality
    method: str

    @property
    def warned(self) -> bool:
        """Whether the program warns."""
        return bool(quality.registration_warnings(self.numbers))


def outcome(head: Deformed, template: Template) -> Outcome:
    """Register a head, and compare the result with the truth."""
    data, affine, mask = template
    points: Points = apply(affine, np.argwhere(mask)[::23])
    anatomy = steps.prepare_t1w(head.data, head.affine)
    found = steps.normalise(
        anatomy.t1w, head.affine, anatomy.brain_mask, data, affine, np.asarray(mask, dtype=bool)
    )
    errors = np.linalg.norm(found.transform(points) - head.to_t1w(points), axis=1)
    median, p95 = np.percentile(errors, [50, 95])
    return Outcome(float(median), float(p95), found.quality, anatomy.method)


def head_rows(name: str, head: Deformed, template: Template) -> Iterator[Row]:
    """The errors of one head, and whether the program judges it rightly."""
    found = outcome(head, template)
    dice = found.numbers.dice or 0.0
    note = f"{found.method}, Dice {dice:.3f}{', warned' if found.warned else ''}"
    yield Row(f"head: {name}", "median (mm)", found.median, note=note)
    yield Row(f"head: {name}", "p95 (mm)", found.p95, note=note)
    rightly = (found.p95 <= RIGHT_MM) != found.warned
    yield Row(f"head: {name}", "judged rightly (1: yes)", float(rightly), ">= 1", note=note)


def _normalised(
    head: Deformed,
    template: Template,
    lesion: NDArray[np.bool_] | None = None,
    method: Method = "fast",
) -> steps.Normalised:
    masks = [] if lesion is None else [(lesion, head.affine)]
    anatomy = steps.prepare_t1w(head.data, head.affine, masks)
    data, affine, mask = template
    return steps.normalise(
        *(anatomy.t1w, head.affine, anatomy.brain_mask),
        *(data, affine, np.asarray(mask, dtype=bool)),
        method=method,
        lesion=anatomy.lesion,
    )
