"""The runs that a call processes: raw BOLD, existing derivatives, or given parcel series.

A data set or files, and a selection, come in. `Run` values go out. What is wrong with a run is
known by then and recorded in one line, so that a broken run never reaches the workflow.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from brainlm_bids.annex import missing_subdatasets, not_installed
from brainlm_bids.bids.describers import Describer, PreprocessedDescriber, RawDescriber, guarded
from brainlm_bids.bids.echoes import about_numbers, images_of_runs
from brainlm_bids.bids.fmriprep import FMRIPREP
from brainlm_bids.bids.layout import find_files
from brainlm_bids.bids.left_out import closed_reason
from brainlm_bids.bids.names import with_prefix, without_prefix
from brainlm_bids.bids.preprocessed import (
    CIFTI_SPACE,
    Producer,
    check_derivatives,
    find_preprocessed,
)
from brainlm_bids.bids.runs import Run
from brainlm_bids.bids.selection import is_selected, no_match, wanted_labels
from brainlm_bids.bids.source_files import SourceFiles
from brainlm_bids.bids.xcp_d import XCP_D
from brainlm_bids.errors import UserError
from brainlm_bids.settings import Settings

# By their names in `--derivatives`.
PRODUCERS = {producer.key: producer for producer in (FMRIPREP, XCP_D)}


class Selection(NamedTuple):
    """What a call selects, before it is looked at.

    Attributes
    ----------
    runs
        Of which only the images are known.
    others
        What is not processed, each with the reason.
    describer
        Makes a describer, which has looked at nothing yet, of what reads the files.
    """

    runs: list[Run]
    others: list[Run]
    describer: Callable[[SourceFiles], Describer]


def find_runs(settings: Settings, sources: SourceFiles | None = None) -> list[Run]:
    """All BOLD runs of the selection, in the order of their names.

    Parameters
    ----------
    settings
        Of the call.
    sources
        Reads the files.

    Raises
    ------
    UserError
        If BIDS_DIR is no BIDS data set, a requested label does not exist, or nothing is left.
    """
    return look_at(select_runs(settings), sources)


def look_at(selection: Selection, sources: SourceFiles | None = None) -> list[Run]:
    """The runs of a selection with what can be found out about them, in the order of their names.

    sources: reads the files.
    """
    describer = selection.describer(sources or SourceFiles())
    runs = [guarded(run, describer.describe) for run in selection.runs]
    return sorted([*runs, *selection.others], key=lambda run: run.source)


def select_runs(settings: Settings) -> Selection:
    """The BOLD runs of the selection, by the names of their files; raises as `find_runs`."""
    root = settings.derivatives_dir or settings.bids_dir
    missing = [path for path in missing_subdatasets(root) if is_asked_for(path, root, settings)]
    around = next((path for path in missing if root.resolve().is_relative_to(path)), None)
    if around is not None:
        raise UserError(f"{root}: {not_installed(around)}")
    if settings.producer is not None:
        return _select_preprocessed(settings, root, PRODUCERS[settings.producer], missing)
    files = find_files(settings)
    if not (files.bold or files.left_out or files.closed or missing):
        raise UserError(f"{settings.bids_dir}: {no_match(files.every_bold, settings)}")
    images = images_of_runs(files.bold)
    runs = [_of_images(paths, root) for paths in images.runs]
    others = [Run(path, root, {}, skip=reason) for path, reason in images.left_out]
    others += [_not_taken(*one, root) for one in files.left_out]
    others += [Run(one, root, {}, problem=closed_reason(one)) for one in files.closed]
    others += [_not_there(one, root) for one in missing]
    others += _without_runs(root, settings, [*runs, *others])
    return Selection(runs, others, partial(RawDescriber, files, settings))


def is_asked_for(path: Path, root: Path, settings: Settings) -> bool:
    """Whether a subdataset holds, or may hold, runs of the selection."""
    if root.resolve().is_relative_to(path):
        return True
    first = path.relative_to(root.resolve()).parts[0]
    asked = {with_prefix("sub", label) for label in settings.participant_label}
    return first.startswith("sub-") and (not asked or first in asked)


def _not_there(path: Path, root: Path) -> Run:
    """A subdataset that was never installed, as a row with what to do."""
    place = root / path.relative_to(root.resolve())
    return Run(place, root, {}, problem=not_installed(place))


def _of_images(paths: tuple[Path, ...], root: Path) -> Run:
    """A raw run of one image, or of several echoes, of which nothing else is known yet."""
    echoes = paths if len(paths) > 1 else ()
    return Run(paths[0], root, {}, echoes=echoes, warnings=about_numbers(paths))


def _not_taken(path: Path, reason: str, root: Path) -> Run:
    return Run(path, root, {}, skip=reason, taken=False)


def _without_runs(root: Path, settings: Settings, runs: Sequence[Run]) -> list[Run]:
    """A row for every participant that was asked for by name and has no run."""
    known = {run.subject for run in runs}
    folders = [root / with_prefix("sub", label) for label in settings.participant_label]
    return [
        _not_taken(folder, f"{folder.name}: has no BOLD run of the selection", root)
        for folder in folders
        if without_prefix("sub", folder.name) not in known
    ]


def _select_preprocessed(
    settings: Settings, root: Path, producer: Producer, missing: Sequence[Path]
) -> Selection:
    """Runs of a program's output folder; missing: its subdatasets that are not installed."""
    check_derivatives(root, producer)
    wanted = wanted_labels(settings)
    spaces = _spaces(settings, producer)
    found = find_preprocessed(root, producer, settings.participant_label, spaces)
    chosen = [one for one in found if is_selected(one.stem, wanted)]
    if not chosen and not missing:
        names = [one.stem for one in found]
        raise UserError(f"--derivatives {root}: {no_match(names, settings)}")
    runs, others = [], [_not_there(one, root) for one in missing]
    for one in chosen:
        if one.files is not None:
            runs.append(Run(one.path, root, {}, preprocessed=one.files))
        elif one.taken:
            others.append(Run(one.path, root, {}, problem=one.reason))
        else:
            others.append(_not_taken(one.path, one.reason, root))
    others += _without_runs(root, settings, [*runs, *others])
    before = settings.derivatives_dirs.get(FMRIPREP.key)
    return Selection(runs, others, partial(PreprocessedDescriber, settings.bids_dir, before))


def _spaces(settings: Settings, producer: Producer) -> Sequence[str]:
    """Which of a program's BOLD files to take, in the order of preference."""
    if settings.input_space != "auto":
        return (settings.input_space,)
    if not producer.denoised and settings.strategy is None and settings.denoise != "none":
        # ICA-AROMA looks at voxels outside of grey matter, which CIFTI lacks.
        return [space for space in producer.spaces if space != CIFTI_SPACE]
    return producer.spaces
