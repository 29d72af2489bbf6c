"""Runs in the derivatives of another program: a folder comes in, `Preprocessed` values go out.

What is particular to a program, such as fMRIPrep, is a `Producer`: how it names its files, and
what of them is used. Only the folders of the requested subjects are listed, each once, so that a
large data set costs nothing. Nothing is written into the folder.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from brainlm_bids.bids.left_out import closed_reason, expected_folder, one_of_each
from brainlm_bids.bids.names import Name, parse, with_prefix
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json
from brainlm_bids.settings import DERIVATIVES

TEMPLATE = "MNI152NLin6Asym"
OTHER_TEMPLATE = "MNI152NLin2009cAsym"
CIFTI_SPACE = "fsLR"
IMAGES = (".nii.gz", ".nii")
CIFTI = ".dtseries.nii"
SURFACE = ".func.gii"


@dataclass(frozen=True)
class Producer:
    """A program that writes derivatives which runs can start from.

    Attributes
    ----------
    key
        Its name in `--derivatives NAME=PATH`, in `GeneratedBy` and in BIDS URIs.
    title
        Its name in prose, and the kind of input in sidecars.
    desc
        The label that the names of its series have.
    spaces
        Of its series, in the order of preference: what needs the least further processing first.
    denoised
        Whether its series are denoised and filtered, so that they are used as they are.
    again
        What to do where a run is there in no form that is used.
    is_series
        Whether a file is named like a BOLD series of the program, of any version.
    not_supported
        Why a run is in no form that could be used under any option, and what to do: from its name,
        its series, and the names of all runs of the folder.
    one_run
        What is used of a run: from its name, its files, those of the folders `anat`, and the
        spaces in the order of preference.
    """

    key: str
    title: str
    desc: str
    spaces: tuple[str, ...]
    denoised: bool
    again: str
    is_series: Callable[[Path], bool] = field(repr=False)
    not_supported: Callable[[str, Sequence[Path], Sequence[str]], str | None] = field(repr=False)
    one_run: Callable[[str, list[Path], list[Path], Sequence[str]], "Candidate"] = field(repr=False)


@dataclass(frozen=True)
class Preprocessed:
    """The files of one run in existing derivatives.

    Attributes
    ----------
    producer
        The program that wrote them.
    stem
        Name of the raw run without its suffix.
    bold, space
        The series, and its space: one of those of the producer; fsLR is CIFTI 91k.
    confounds
        The table of confounds, or of motion alone.
    mask
        The brain mask of the series.
    to_template, to_t1w
        ITK transforms from the T1w to the template (for series in T1w or boldref space), and from
        the BOLD reference to the T1w (for boldref space).
    censoring
        The table that marks the censored volumes.
    design
        The table of the confounds that were regressed out.
    quality
        The table that counts the volumes that were left out at the start.
    level
        The preprocessed series that a denoised one was made from, which still has its mean; None
        where it is not there.
    dropped
        Volumes that the program left out at the start of the scan; None where it is not known.
    labels
        The atlas on CIFTI's grayordinates.
    """

    producer: Producer
    stem: str
    bold: Path
    space: str
    confounds: Path | None
    mask: Path | None = None
    to_template: Path | None = None
    to_t1w: Path | None = None
    censoring: Path | None = None
    design: Path | None = None
    quality: Path | None = None
    level: Path | None = None
    dropped: int | None = None
    labels: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that the run's outputs depend on."""
        found = (
            *(self.bold, self.confounds, self.mask, self.to_template, self.to_t1w),
            *(self.censoring, self.design, self.quality, self.level),
        )
        return tuple(path for path in found if path is not None)


class Candidate(NamedTuple):
    """What looks like a run.

    Attributes
    ----------
    stem
        Name of the raw run without its suffix.
    path
        One of its files.
    files
        What is used of it; None if it cannot be.
    reason
        Why it cannot be used, in one line.
    taken
        Whether it would be processed if it were complete. What is written in forms that are not
        supported, or beside the run that is used, is not.
    """

    stem: str
    path: Path
    files: Preprocessed | None
    reason: str = ""
    taken: bool = True


def made_by(root: Path) -> list[tuple[str, str | None]]:
    """The programs that a folder of derivatives was made by, each with its version if recorded.

    Raises
    ------
    UserError
        If the folder has no description that can be read.
    """
    path = root / "dataset_description.json"
    description = read_json(path)
    made = description.get("GeneratedBy")
    # fMRIPrep 1.x wrote PipelineDescription instead
    listed = made if isinstance(made, list) else [description.get("PipelineDescription")]
    programs = [one for one in listed if isinstance(one, dict) and one.get("Name")]
    return [(str(one["Name"]), str(one.get("Version") or "") or None) for one in programs]


def _key(name: str) -> str:
    """A program's name in the form of `Producer.key`; the name in small letters for others.

    >>> _key("XCP-D"), _key("fMRIPrep - fMRI PREProcessing workflow"), _key("Nibabies")
    ('xcp_d', 'fmriprep', 'nibabies')
    """
    letters = name.lower().replace("-", "_")
    return next((key for key in DERIVATIVES if key in letters), letters)


def check_derivatives(root: Path, producer: Producer) -> None:
    """Raise UserError for a folder that a program did not write.

    A program that starts from the derivatives of another lists that one, too: the one that wrote
    the folder is the last of `DERIVATIVES` that is listed.
    """
    flag = f"--derivatives {root}"
    try:
        names = [name for name, _ in made_by(root)]
    except UserError as error:
        inside = root / producer.key
        found = f", {inside}" if (inside / "dataset_description.json").is_file() else ""
        raise UserError(
            f"{flag}: dataset_description.json cannot be read ({error}); give the top of "
            f"{producer.title}'s output folder{found}"
        ) from None
    keys = {_key(name) for name in names}
    writer = next((key for key in reversed(DERIVATIVES) if key in keys), None)
    if writer == producer.key:
        return
    made = ", ".join(names) or "an unknown program"
    way = f"; give it as --derivatives {writer}={root}" if writer else ""
    raise UserError(f"{flag}: made by {made}, not by {producer.title}{way}")


def producer_version(root: Path, producer: Producer) -> str | None:
    """The version of the program that a folder of its derivatives records; None if it does not."""
    try:
        made = made_by(root)
    except UserError:
        return None
    return next((version for name, version in made if _key(name) == producer.key), None)


def find_preprocessed(
    root: Path, producer: Producer, subjects: Sequence[str], spaces: Sequence[str] = ()
) -> list[Candidate]:
    """Everything that looks like a run of some subjects.

    Parameters
    ----------
    root
        The top of the program's output folder.
    producer
        The program.
    subjects
        Their labels; all if empty.
    spaces
        In the order of preference: the first that a run has is taken. All that the program writes,
        if none is given.

    Raises
    ------
    UserError
        For a subject that is not there.
    """
    spaces = spaces or producer.spaces
    folders = [root / with_prefix("sub", label) for label in subjects] or sorted(root.glob("sub-*"))
    found = []
    for folder in folders:
        if not folder.is_dir() and not subjects:
            continue  # sub-01.html
        if not folder.is_dir():
            raise UserError(
                f"--derivatives {root}: there is no folder {folder.name}; has {producer.title} "
                "been run for this participant?"
            )
        for session in [folder, *sorted(folder.glob("ses-*"))]:
            func, anat = session / "func", (session / "anat", folder / "anat")
            try:
                found += _runs(producer, func, anat, spaces) if func.is_dir() else []
            except PermissionError as error:
                closed = Path(error.filename or func)
                found.append(Candidate(folder.name, closed, None, closed_reason(closed)))
        found += _elsewhere(producer, folder, root)
    return _once_each(found, root)


def _once_each(found: Sequence[Candidate], root: Path) -> list[Candidate]:
    """The candidates, of which those with the name of another run are not taken."""
    twins = dict(one_of_each([one.path for one in found if one.files is not None], root)[1])
    return [
        one._replace(files=None, reason=twins[one.path], taken=False) if one.path in twins else one
        for one in found
    ]


def _runs(
    producer: Producer, func: Path, anat: Iterable[Path], spaces: Sequence[str]
) -> list[Candidate]:
    files: dict[str, list[Path]] = {}
    for path in sorted(func.iterdir()):
        files.setdefault(raw_stem(path), []).append(path)
    warps = [path for folder in anat if folder.is_dir() for path in sorted(folder.iterdir())]
    series = {
        stem: [path for path in own if producer.is_series(path)] for stem, own in files.items()
    }
    stems = [stem for stem, bold in series.items() if bold]
    lonely = (_lonely(producer, stem, own) for stem, own in files.items() if not series[stem])
    runs = [one for one in lonely if one is not None]
    for stem in stems:
        reason = producer.not_supported(stem, series[stem], stems)
        if reason is None:
            runs.append(producer.one_run(stem, files[stem], warps, spaces))
        else:
            runs.append(Candidate(stem, series[stem][0], None, f"{stem}: {reason}", taken=False))
    return runs


def _lonely(producer: Producer, stem: str, files: Sequence[Path]) -> Candidate | None:
    """A run of which only the sidecar of a series is there."""
    for path in files:
        name = parse(path.name)
        if (name.suffix, name.get("desc"), name.extension) == ("bold", producer.desc, ".json"):
            reason = f"{path.name}: there is no image beside it"
            return Candidate(stem, path, None, reason, taken=False)
    return None


def _elsewhere(producer: Producer, folder: Path, root: Path) -> Iterator[Candidate]:
    """Series of a subject that lie where the program writes none."""
    told = set()
    for where, folders, names in os.walk(folder):
        folders.sort()
        if Path(where).name == "func" and Path(where).parent.name.startswith(("sub-", "ses-")):
            continue
        for path in (Path(where) / name for name in sorted(names)):
            stem = raw_stem(path)
            if producer.is_series(path) and (where, stem) not in told:
                told.add((where, stem))
                place = path.parent.relative_to(root).as_posix()
                expected = expected_folder(path).as_posix()
                reason = (
                    f"lies in {place}, and {producer.title} writes series into {expected}; move it"
                )
                yield Candidate(stem, path, None, f"{path.name}: {reason}", taken=False)


def raw_stem(path: Path) -> str:
    """The name of the raw run that a file is about, without its suffix."""
    return parse(path.name).source.removesuffix("_bold")


def by_space(files: Sequence[Path], space_of: Callable[[Name], str | None]) -> dict[str, Path]:
    """The series of each space; of several resolutions that of 2 mm, or the first.

    Parameters
    ----------
    files
        Of one run.
    space_of
        The space of a series that can be read; None for other files.
    """
    found: dict[str, Path] = {}
    # compressed ones first: what lies beside them uncompressed is a copy for another program
    for path in sorted(files, key=lambda path: (path.suffix != ".gz", path)):
        name = parse(path.name)
        space = space_of(name)
        # Of several, 2 mm is what the atlas has; 1 mm is eight times the size.
        if space is not None and (
            space not in found or (name.get("res") == "2" != parse(found[space].name).get("res"))
        ):
            found[space] = path
    return found
