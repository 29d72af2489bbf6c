"""The T1w image of a run: which one is taken, and what is wrong with those that are not."""

from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from brainlm_bids.bids.headers import Look, look_at_t1w
from brainlm_bids.bids.lesions import Lesions, lesions_of, masks_in, masks_of
from brainlm_bids.bids.names import Name, parse
from brainlm_bids.bids.source_files import SourceFiles
from brainlm_bids.errors import UserError
from brainlm_bids.notices import Kind, Notice, notice

_REMEMBERED = 20  # subjects, whose runs come one after another


class T1w(NamedTuple):
    """The T1w image of a run.

    Attributes
    ----------
    path
        The image; None without one.
    problem
        Why the run cannot be processed, in one line.
    warnings
        What should be known of the choice.
    lesions
        Masks of what the image shows damaged.
    """

    path: Path | None = None
    problem: str | None = None
    warnings: tuple[Notice, ...] = ()
    lesions: tuple[Path, ...] = ()


class Anatomy:
    """The T1w images of some subjects. Each is looked at once, when a run asks for it.

    Parameters
    ----------
    images
        Tried in the order of their names, the compressed one of two with the same name first.
    fallback
        Whether a run whose T1w images are all damaged is processed without one.
    bids_dir
        The data set that they are in.
    orientation
        Where the axes of images lead whose headers do not record it.
    sources
        Reads them.
    """

    def __init__(
        self,
        images: Iterable[Path],
        bids_dir: Path,
        *,
        fallback: bool,
        orientation: str | None = None,
        sources: SourceFiles | None = None,
    ) -> None:
        self._of_subject: dict[str, list[Path]] = {}
        for path in sorted(images, key=_order):
            self._of_subject.setdefault(parse(path.name).get("sub"), []).append(path)
        self._fallback = fallback
        self._orientation = orientation
        self._bids_dir = bids_dir
        self._sources = sources or SourceFiles()
        self._looks: dict[Path, Look] = {}
        self._lesions: dict[Path, Lesions] = {}
        self._masks: dict[Path, list[Path]] = {}
        # those of a subject are asked for by each of its images
        self._masks_in = lru_cache(_REMEMBERED)(partial(masks_in, bids_dir))

    def of(self, run: Name) -> T1w:
        """The T1w image of a run: the first of its session that can be read, else of any other."""
        images, own = self._candidates(run)
        damaged: list[str] = []
        for path in images:
            look = self._look(path)
            if look.problem is None:
                lesions = self._lesions_of(path)
                chosen = _notices(path, damaged, own, run)
                warnings = (*chosen, *look.warnings, *lesions.warnings)
                return T1w(path, None, warnings, lesions.paths)
            damaged.append(look.problem)
        if not images:
            return T1w()
        if self._fallback:
            text = (
                f"{_sentence(damaged[0])} The run is processed without a T1w image "
                "(--anat-fallback): the BOLD reference was registered to the template directly, "
                "which is less accurate. Check the alignment before using the parcel series."
            )
            return T1w(warnings=(notice(Kind.NO_T1W, text),))
        return T1w(problem=f"{damaged[0]}; or process the run without it (--anat-fallback)")

    def needed(self, run: Name) -> list[Path]:
        """Files that the choice of a run's T1w image depends on, the image and its masks.

        The images that would be looked at are listed as far as one that was not fetched, since
        whether another is needed is not known before.
        """
        images: list[Path] = []
        for path in self._candidates(run)[0]:
            images.append(path)
            if self._sources.is_absent(path) or self._look(path).problem is None:
                return [*images, *self._masks_of(path)]
        return images

    def every(self, run: Name) -> list[Path]:
        """All T1w images of a run's subject, and their lesion masks."""
        images = self._candidates(run)[0]
        masks = (mask for path in images for mask in self._masks_of(path))
        return list(dict.fromkeys([*images, *masks]))

    def _masks_of(self, path: Path) -> list[Path]:
        if path not in self._masks:
            self._masks[path] = masks_of(path, self._masks_in(parse(path.name).subject))
        return self._masks[path]

    def _candidates(self, run: Name) -> tuple[list[Path], list[Path]]:
        """The images of a run's subject in the order of preference; those of its session."""
        every = self._of_subject.get(run.get("sub"), [])
        own = [path for path in every if parse(path.name).get("ses") == run.get("ses")]
        return [*own, *(path for path in every if path not in own)], own

    def _lesions_of(self, path: Path) -> Lesions:
        if path not in self._lesions:
            masks = self._masks_in(parse(path.name).subject)
            self._lesions[path] = lesions_of(
                path, self._bids_dir, self._orientation, self._sources, masks
            )
        return self._lesions[path]

    def _look(self, path: Path) -> Look:
        if path not in self._looks:
            self._looks[path] = _look_at(path, self._orientation, self._sources)
        return self._looks[path]


def _order(path: Path) -> tuple[str, str, bool]:
    return path.parent.as_posix(), parse(path.name).bare, path.suffix != ".gz"


def _look_at(path: Path, orientation: str | None, sources: SourceFiles) -> Look:
    """What is wrong with an image, and what should be known of it."""
    try:
        size = sources.check(path, whole=True)
        look = look_at_t1w(path, orientation, loader=sources.head)
        if look.problem is None:
            sources.check_last_voxel(path, size)
    except UserError as error:
        return Look(str(error))
    return look


def _sentence(fault: str) -> str:
    return fault if fault.endswith("?") else f"{fault}."


def _notices(
    path: Path, damaged: Sequence[str], own: Sequence[Path], run: Name
) -> Iterable[Notice]:
    if damaged:
        text = f"{_sentence(damaged[0])} Another T1w image, {path.name}, was used."
        yield notice(Kind.T1W_DAMAGED, text)
    if path not in own:
        session = run.get("ses")
        where = f"Session {session}" if session else "The subject's folder without session"
        text = f"{where} has no T1w image that can be read; {path.name} was used."
        yield notice(Kind.T1W_OF_OTHER_SESSION, text)
    elif not damaged and len(own) > 1:
        text = (
            f"There are {len(own)} T1w images of this session; {path.name} was used. Another can "
            "be chosen with --bids-filter-file."
        )
        yield notice(Kind.T1W_OF_SEVERAL, text)
