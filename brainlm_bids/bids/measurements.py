"""From images that were declared for a run to a `Fieldmap`, or to the reason why they are none.

The images of a session and a run come in. A faulty field map raises a UserError of one line, after
which the caller tries the next one.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from brainlm_bids.bids.fieldmaps import FIELD, PAIR, PHASEDIFF, PHASES, Fieldmap
from brainlm_bids.bids.raw_images import Clock, RawImage
from brainlm_bids.bids.readout import phase_encoding_direction, total_readout_time
from brainlm_bids.errors import UserError

# The kinds in the order of preference, that of fMRIPrep 1: a pair was measured with the run's own
# echo train and needs no unwrapping; a field in Hz needs none either.
PREFERENCE = (PAIR, FIELD, PHASEDIFF, PHASES)
_UNITS = {
    **{"hz": "Hz", "hertz": "Hz"},
    **{"rad/s": "rad/s", "rad/sec": "rad/s", "radians/second": "rad/s"},
    **{"t": "T", "tesla": "T"},
}
# Echo times of gradient-echo field maps lie well within, s.
LONGEST_ECHO = 0.1


@dataclass(frozen=True)
class RunImage:
    """A run, as the choice of its field map needs it.

    Attributes
    ----------
    image
        Its own image.
    direction, seconds
        Of its phase encoding, and its total read-out time.
    sbref
        Its single-band reference, if it has one that fits.
    fallback
        Of read-out times (`--fallback-total-readout-time`).
    """

    image: RawImage
    direction: str
    seconds: float
    sbref: RawImage | None = None
    fallback: float | str | None = None


Attempt = Callable[[], Fieldmap]


def attempts(images: Sequence[RawImage], run: RunImage, clock: Clock) -> list[Attempt]:
    """Ways to a field map for a run, from images that belong together, the best first.

    The order is that of `PREFERENCE`; of several of a kind, the nearest in time, then by name.
    """
    by_nearness = sorted(images, key=lambda image: nearness(image, run.image, clock))

    def of(suffix: str) -> list[RawImage]:
        return [image for image in by_nearness if image.name.suffix == suffix]

    echo_planar = [one for one in by_nearness if one.name.suffix in ("epi", "sbref", "bold")]
    found: dict[str, list[Attempt]] = {kind: [] for kind in PREFERENCE}
    if echo_planar:
        found[PAIR] = [partial(_pair, echo_planar, run)]
    found[FIELD] = [partial(_field, one, images) for one in of("fieldmap")]
    found[PHASEDIFF] = [partial(_phasediff, one, images) for one in of("phasediff")]
    found[PHASES] = [partial(_phases, one, images) for one in of("phase1")]
    return [attempt for kind in PREFERENCE for attempt in found[kind]]


def nearness(image: RawImage, run: RawImage, clock: Clock) -> tuple[float, int, int, int, str]:
    """How far an image is from a run: in time if that is recorded, else by their names."""
    own, other = run.name.entities, image.name.entities
    both = [entity for entity in own if entity in other and entity != "run"]
    shared = sum(own[entity] == other[entity] for entity in both)
    numbers = [labels.get("run", "") for labels in (own, other)]
    apart = abs(int(numbers[0]) - int(numbers[1])) if all(map(str.isdecimal, numbers)) else 10**6
    seconds = clock.seconds_between(image, run)
    return seconds, -shared, len(both) - shared, apart, image.path.as_posix()


def with_companions(images: Iterable[RawImage], every: Iterable[RawImage]) -> list[RawImage]:
    """Declared images and what belongs to them although it was not declared.

    That is what has the same name but for the suffix, such as the magnitude, and the other image of
    a pair, which has the same name but for `dir`.
    """
    chosen = list(images)
    maps = {(image.path.parent, image.name.stem) for image in chosen if _is_map(image)}
    pairs = [(image.path.parent, without_dir(image)) for image in chosen if _is_epi(image)]
    return chosen + [
        image
        for image in every
        if image not in chosen
        and (
            (_is_map(image) and (image.path.parent, image.name.stem) in maps)
            or (_is_epi(image) and (image.path.parent, without_dir(image)) in pairs)
        )
    ]


def _is_epi(image: RawImage) -> bool:
    return image.name.suffix == "epi"


def without_dir(image: RawImage) -> dict[str, str]:
    """The labels of an image's name but for that of `dir`."""
    return {entity: label for entity, label in image.name.entities.items() if entity != "dir"}


def _is_map(image: RawImage) -> bool:
    return image.name.suffix in (
        *("phasediff", "phase1", "phase2", "fieldmap"),
        *("magnitude", "magnitude1", "magnitude2"),
    )


def _beside(image: RawImage, images: Sequence[RawImage], suffix: str) -> RawImage | None:
    """The image of the same name with another suffix; else the only one with that suffix."""
    found = [one for one in images if one.name.suffix == suffix]
    own = [one for one in found if one.name.stem == image.name.stem]
    if own:
        return own[0]
    return found[0] if len(found) == 1 else None


# --- maps of the field -----------------------------------------------------------------------


def _field(image: RawImage, images: Sequence[RawImage]) -> Fieldmap:
    units = image.metadata.get("Units")
    known = _UNITS.get(units.strip().lower()) if isinstance(units, str) else None
    if known is None:
        what = "no Units in its sidecars" if units is None else f"Units {units!r}"
        raise UserError(f"{image.path.name}: {what}; known are Hz, rad/s and T")
    return _with_magnitude(Fieldmap(FIELD, (image.path,), units=known), [image], images)


def _phasediff(image: RawImage, images: Sequence[RawImage]) -> Fieldmap:
    times = [image.metadata.get(name) for name in ("EchoTime1", "EchoTime2")]
    if None in times:
        magnitudes = [_beside(image, images, name) for name in ("magnitude1", "magnitude2")]
        times = [_echo_time(one) for one in magnitudes if one is not None]
    found = Fieldmap(PHASEDIFF, (image.path,), echo_times=_echo_times(image, times))
    return _with_magnitude(found, [image], images)


def _phases(one: RawImage, images: Sequence[RawImage]) -> Fieldmap:
    two = _beside(one, images, "phase2")
    if two is None:
        raise UserError(f"{one.path.name}: has no phase2 image beside it")
    times = [_echo_time(image) for image in (one, two)]
    if None in times:
        magnitudes = [_beside(one, images, name) for name in ("magnitude1", "magnitude2")]
        times = [_echo_time(image) for image in magnitudes if image is not None]
    ordered = _echo_times(one, times)
    shorter_first = [one, two] if times[0] == ordered[0] else [two, one]
    paths = tuple(image.path for image in shorter_first)
    return _with_magnitude(Fieldmap(PHASES, paths, echo_times=ordered), [one, two], images)


def _echo_time(image: RawImage) -> Any:
    return image.metadata.get("EchoTime")


def _echo_times(image: RawImage, times: Sequence[Any]) -> tuple[float, float]:
    """Two echo times in seconds, the shorter first."""
    name = image.path.name
    if len(times) != 2 or None in times:
        wanted = "EchoTime1 and EchoTime2" if image.name.suffix == PHASEDIFF else "EchoTime"
        raise UserError(f"{name}: no {wanted} in its sidecars")
    numbers = [float(t) for t in times if isinstance(t, int | float) and not isinstance(t, bool)]
    if len(numbers) != 2 or not all(0 < t <= LONGEST_ECHO for t in numbers):
        shown = " and ".join(map(repr, times))
        raise UserError(f"{name}: its echo times, {shown}, are not times in seconds")
    if numbers[0] == numbers[1]:
        raise UserError(f"{name}: both of its echo times are {numbers[0]:g} s")
    return min(numbers), max(numbers)


def _with_magnitude(
    found: Fieldmap, maps: Sequence[RawImage], images: Sequence[RawImage]
) -> Fieldmap:
    """A field map with the first magnitude image that lies on its grid."""
    first = maps[0]
    for image in maps:
        _check_one_volume(image)
        if not image.has_grid_of(first):
            raise UserError(f"{image.path.name}: differs in grid from {first.path.name}")
    fault = f"{first.path.name}: has no magnitude image beside it"
    for suffix in ("magnitude1", "magnitude", "magnitude2"):
        magnitude = _beside(first, images, suffix)
        if magnitude is None:
            continue
        try:
            _check_one_volume(magnitude)
        except UserError as error:
            fault = str(error)
            continue
        if magnitude.has_grid_of(first):
            return replace(found, magnitude=magnitude.path)
        fault = f"{magnitude.path.name}: differs in grid from {first.path.name}"
    raise UserError(fault)


def _check_one_volume(image: RawImage) -> None:
    if len(image.grid.shape) != 3:
        raise UserError(f"{image.path.name}: has the shape {image.grid.shape}, not one volume")


# --- pairs of opposite polarity --------------------------------------------------------------


@dataclass(frozen=True)
class _Encoded:
    """An echo-planar image with its direction of phase encoding and total read-out time."""

    image: RawImage
    direction: str
    seconds: float

    @property
    def axis(self) -> str:
        return self.direction[0]


def _pair(images: Sequence[RawImage], run: RunImage) -> Fieldmap:
    """The nearest image of each polarity; the run itself where no other has its own."""
    usable, faults = _encoded(images, run)
    if not usable:
        raise UserError(faults[0])
    along = [one for one in usable if one.axis == run.direction[0]]
    own = [one for one in along if one.direction == run.direction]
    opposite = [one for one in along if one.direction != run.direction]
    own += _own_images(run, {one.image.name.suffix for one in opposite})
    if not opposite:
        own, opposite = _other_axis(usable, run)
    if not opposite:
        raise UserError(faults[0] if faults else _equal_polarity(usable, run))
    for one, other in product(own, opposite):
        if _are_alike(one.image, other.image):
            both = (one, other)
            return Fieldmap(
                PAIR,
                tuple(each.image.path for each in both),
                encodings=tuple((each.direction, each.seconds) for each in both),
            )
    nearest, opposed = own[0].image, opposite[0].image
    raise UserError(
        f"{opposed.path.name}: has another grid than {nearest.path.name} of the opposite polarity "
        f"({_voxels(opposed)} and {_voxels(nearest)})"
    )


def _encoded(images: Sequence[RawImage], run: RunImage) -> tuple[list[_Encoded], list[str]]:
    """Echo-planar images that can be used, and what is wrong with the others."""
    usable, faults = [], []
    for image in images:
        try:
            usable.append(_encoding(image, run))
        except UserError as error:
            faults.append(" ".join(str(error).split()))
    return usable, faults


def _encoding(image: RawImage, run: RunImage) -> _Encoded:
    name = image.path.name
    if image.name.get("part") not in ("", "mag"):
        raise UserError(f"{name}: is not the magnitude of the image")
    direction, problem = phase_encoding_direction(image.metadata)
    if direction is None:
        raise UserError(f"{name}: {problem}")
    _ = image.grid  # whatever is wrong with the file
    readout = total_readout_time(image.metadata, image.shape, direction, run.fallback)
    if readout.seconds is None:
        raise UserError(f"{name}: {readout.problem}")
    return _Encoded(image, direction, readout.seconds)


def _own_images(run: RunImage, suffixes: set[str]) -> list[_Encoded]:
    """The run's own images as the half of a pair: like with like, for the sake of contrast."""
    own = [run.image] if run.sbref is None else [run.sbref, run.image]
    if suffixes == {"bold"}:
        own = own[::-1]
    return [_Encoded(image, run.direction, run.seconds) for image in own]


def _other_axis(usable: Sequence[_Encoded], run: RunImage) -> tuple[list[_Encoded], list[_Encoded]]:
    """A pair across the run's axis: it measures the same field."""
    for axis in "ijk":
        plus = [one for one in usable if one.direction == axis]
        minus = [one for one in usable if one.direction == f"{axis}-"]
        if axis != run.direction[0] and plus and minus:
            return plus, minus
    return [], []


def _equal_polarity(usable: Sequence[_Encoded], run: RunImage) -> str:
    names = [one.image.path.name for one in usable]
    along = {one.direction for one in usable}
    if along == {run.direction}:
        if len(names) == 1:
            return f"{names[0]}: has the run's own PhaseEncodingDirection, {run.direction}"
        both = " and ".join(names[:2])
        return f"{both} have the same PhaseEncodingDirection, {run.direction}"
    shown = ", ".join(sorted(along))
    return f"{names[0]}: PhaseEncodingDirection {shown} is not opposite to any other image's"


def _are_alike(one: RawImage, other: RawImage) -> bool:
    """Whether two echo-planar images have the same matrix and voxels, wherever the head was."""
    sizes = [np.linalg.norm(image.grid.affine[:3, :3], axis=0) for image in (one, other)]
    same = one.grid.shape[:3] == other.grid.shape[:3]
    return same and bool(np.allclose(sizes[0], sizes[1], rtol=0.01))


def _voxels(image: RawImage) -> str:
    sizes = np.linalg.norm(image.grid.affine[:3, :3], axis=0)
    shape = " × ".join(str(n) for n in image.grid.shape[:3])
    return f"{shape} voxels of {' × '.join(f'{size:.3g}' for size in sizes)} mm"


def undeclared_partners(run: RawImage, images: Iterable[RawImage]) -> list[RawImage]:
    """Single-band references and runs whose names differ from a run's in `dir` alone."""
    return [
        image
        for image in images
        if image.name.get("dir") != run.name.get("dir") and without_dir(image) == without_dir(run)
    ]
