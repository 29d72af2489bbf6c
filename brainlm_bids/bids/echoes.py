"""Echoes and complex parts of raw BOLD runs: which images are one run, and when echoes were read.

Paths of a data set come in. The images of each run go out, and for every image that is not taken
the reason in one line. The echo times of a run are read from the sidecars of its echoes, or refused
with the reason: a wrong one would weigh the echoes wrongly without anybody noticing.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.bids.headers import image_grid, look_at_image, metadata_problem
from brainlm_bids.bids.left_out import LeftOut
from brainlm_bids.bids.names import Name, parse
from brainlm_bids.bids.source_files import SourceFiles
from brainlm_bids.errors import UserError
from brainlm_bids.notices import Kind, Notice, notice

# Echo times of echo-planar images lie well within (s); a larger number is one in milliseconds.
SHORTEST_ECHO_TIME, LONGEST_ECHO_TIME = 1e-3, 0.3
# Echoes of one acquisition have one grid, but for rounding (mm).
SAME_PLACE = 0.01
MAGNITUDE = "mag"
# A decay by T2* alone and one by S0 alone are told apart by three echoes.
FEWEST_ECHOES = 3


class Images(NamedTuple):
    """The images of raw runs.

    Attributes
    ----------
    runs
        The images of each run: one, or the magnitudes of its echoes by their numbers.
    left_out
        Images that are parts of a run and not taken.
    """

    runs: list[tuple[Path, ...]]
    left_out: list[LeftOut]


class Echoes(NamedTuple):
    """The echoes of one run, the shortest echo time first; times in s."""

    paths: tuple[Path, ...]
    times: tuple[float, ...]
    metadata: dict[str, Any]
    warnings: tuple[Notice, ...]


def images_of_runs(paths: Iterable[Path]) -> Images:
    """Sort BOLD images into runs.

    The magnitudes of several echoes are one run. An image that combines the echoes is the run, and
    they are left out; so are phase, real and imaginary parts.

    Parameters
    ----------
    paths
        Of BOLD images, each once.
    """
    found = Images([], [])
    names = {path: parse(path.name) for path in paths}
    stems = {name.stem for name in names.values()}
    whole = {name.without("part").stem for name in names.values() if _is_whole(name)}
    by_run: dict[str, list[Path]] = {}
    for path, name in names.items():
        reason = _why_left_out(name, stems, whole)
        if reason is None:
            by_run.setdefault(name.without("echo", "part").stem, []).append(path)
        else:
            found.left_out.append(LeftOut(path, f"{path.name}: {reason}"))
    found.runs.extend(tuple(sorted(group, key=_number)) for group in by_run.values())
    return found


def _is_whole(name: Name) -> bool:
    return not name.get("echo") and name.get("part", MAGNITUDE) == MAGNITUDE


def _why_left_out(name: Name, stems: set[str], whole: set[str]) -> str | None:
    """Why an image is not taken as a run, or as an echo of one; None if it is.

    stems: of all images; whole: the runs of those that are neither an echo nor another part.
    """
    run, image = name.without("echo", "part").stem, name.without("part").stem
    if not _is_whole(name) and run in whole:
        return f"is a part of {run}, which is used"
    if name.get("part") and image in stems:
        return f"is a part of {image}, which is used"
    if name.get("part", MAGNITUDE) == MAGNITUDE:
        return None
    return (
        f"is the {name.get('part')} part of a complex image, of which only the magnitude "
        "(part-mag) is processed"
    )


def _number(path: Path) -> tuple[int, str]:
    label = parse(path.name).get("echo")
    return (int(label) if label.isdecimal() else 0, path.name)


@lru_cache(64)  # a run asks for it dozens of times
def stem_of_run(name: Name, *, combined: bool) -> str:
    """The stem of a run's outputs, by the name of its (first) image.

    Parameters
    ----------
    name
        Of the image.
    combined
        Whether several echoes are combined: the outputs then have no number of an echo.

    Examples
    --------
    >>> stem_of_run(parse("sub-1_task-a_echo-1_part-mag_bold.nii.gz"), combined=True)
    'sub-1_task-a'
    >>> stem_of_run(parse("sub-1_task-a_echo-2_bold.nii.gz"), combined=False)
    'sub-1_task-a_echo-2'
    """
    dropped = ["part"] if name.get("part") == MAGNITUDE else []
    return name.without(*dropped, *(["echo"] if combined else [])).stem


def read_echoes(
    paths: Sequence[Path],
    bids_dir: Path,
    orientation: str | None,
    sources: SourceFiles | None = None,
) -> Echoes:
    """Read the sidecars and headers of a run's echoes.

    Parameters
    ----------
    paths
        Of two echoes or more, by their numbers.
    bids_dir
        The data set.
    orientation
        Where the axes lead, such as "LAS", if headers do not record it.
    sources
        Reads them.

    Returns
    -------
    Echoes
        Sorted by their echo times.

    Raises
    ------
    UserError
        If one of them cannot be used, or they do not belong together: a run is not combined from
        some of its echoes unless the user has selected these.
    """
    sources = sources or SourceFiles()
    try:
        for path in paths:
            sources.check(path)
        sidecars = {path: sources.metadata(path, bids_dir) for path in paths}
        times = {path: _echo_time(path, sidecars[path]) for path in paths}
        for path in paths:
            tr = float(sidecars[path]["RepetitionTime"])
            look = look_at_image(path, tr, orientation, loader=sources.head)
            if look.problem is not None:
                raise UserError(look.problem)
        ordered = sorted(paths, key=lambda path: times[path])
        grids = {path: image_grid(path, orientation, sources.head) for path in ordered}
        _check_alike(ordered, times, sidecars, grids)
    except UserError as error:
        raise UserError(
            f"{error}. All echoes are needed; others can be selected in --bids-filter-file, such "
            'as {"bold": {"echo": [1, 2]}}'
        ) from error
    first = sidecars[ordered[0]]
    return Echoes(
        tuple(ordered), tuple(times[path] for path in ordered), first, _about(paths, ordered)
    )


def _echo_time(path: Path, metadata: dict[str, Any]) -> float:
    problem = metadata_problem(path, metadata)
    if problem is not None:
        raise UserError(problem)
    value = metadata.get("EchoTime")
    if value is None:
        raise UserError(f"{path.name}: no EchoTime in its sidecars; add it (in seconds)")
    if _is_echo_time(value):
        return float(value)
    meant = ""
    if isinstance(value, int | float) and _is_echo_time(value / 1000):
        meant = f"; {value:g} ms are {value / 1000:g} s"
    raise UserError(f"{path.name}: EchoTime {value!r} in its sidecars is no echo time in s{meant}")


def _is_echo_time(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and SHORTEST_ECHO_TIME <= value <= LONGEST_ECHO_TIME
    )


def _check_alike(
    paths: Sequence[Path],
    times: Mapping[Path, float],
    sidecars: Mapping[Path, Mapping[str, Any]],
    grids: Mapping[Path, tuple[tuple[int, ...], NDArray[np.float64]]],
) -> None:
    """Raise UserError where echoes, by ascending times, are not those of one acquisition."""
    for path, other in pairwise(paths):
        if times[path] == times[other]:
            raise UserError(
                f"{path.name} and {other.name}: both have the EchoTime {times[path]:g} s"
            )
    first, *others = paths
    shape, affine = grids[first]
    for path in others:
        own, place = grids[path]
        if own[:3] != shape[:3] or not np.allclose(place, affine, rtol=0, atol=SAME_PLACE):
            raise UserError(f"{path.name}: is on another grid than {first.name}")
        if own != shape:
            raise UserError(
                f"{path.name}: has {_volumes(own)} volumes, and {first.name} {_volumes(shape)}"
            )
        tr, of_first = (float(sidecars[one]["RepetitionTime"]) for one in (path, first))
        if tr != of_first:
            raise UserError(
                f"{path.name}: RepetitionTime is {tr:g} s, and that of {first.name} {of_first:g} s"
            )


def _volumes(shape: Sequence[int]) -> int:
    return shape[3] if len(shape) > 3 else 1


def _about(paths: Sequence[Path], ordered: Sequence[Path]) -> tuple[Notice, ...]:
    """What should be known of echoes that can be combined."""
    stem = stem_of_run(parse(paths[0].name), combined=True)
    warnings = []
    if list(paths) != list(ordered):
        text = (
            f"{stem}: the echo times do not ascend with the numbers of the echoes; the echoes were "
            "put in the order of their times. Check the sidecars."
        )
        warnings.append(notice(Kind.ECHO_ORDER, text))
    if len(paths) == 2:
        text = (
            f"{stem}: two echoes. T2* is that of the line through both, which nothing can confirm; "
            "their combination is as good as it is."
        )
        warnings.append(notice(Kind.TWO_ECHOES, text))
    return tuple(warnings)


def about_numbers(paths: Sequence[Path]) -> tuple[Notice, ...]:
    """A warning where the numbers of a run's echoes show that there are, or were, others.

    Parameters
    ----------
    paths
        Of the echoes of one run that are used.

    Examples
    --------
    >>> about_numbers([Path("sub-1_task-a_echo-2_bold.nii.gz")])[0].text
    'sub-1_task-a: only echo 2 of a multi-echo run was used; there was no other in the selection.'
    >>> about_numbers([Path("sub-1_task-a_bold.nii.gz")])
    ()
    """
    labels = [parse(path.name).get("echo") for path in paths]
    stem = stem_of_run(parse(paths[0].name), combined=True)
    if len(labels) == 1:
        if not labels[0]:
            return ()
        text = (
            f"{stem}: only echo {labels[0]} of a multi-echo run was used; there was no other in "
            "the selection."
        )
        return (notice(Kind.MISSING_ECHOES, text),)
    numbers = [int(label) for label in labels if label.isdecimal()]
    missing = sorted(set(range(1, max(numbers, default=0))) - set(numbers))
    if not missing:
        return ()
    which = ", ".join(map(str, missing))
    text = f"{stem}: the run was combined without echo {which}, not in the selection."
    return (notice(Kind.MISSING_ECHOES, text),)
