"""Runs in existing fMRIPrep derivatives: a folder comes in, `Preprocessed` values go out.

The names that fMRIPrep 20 to 25 write are understood. Only the folders of the requested subjects
are listed, each once, so that a large data set costs nothing. Nothing is written into the folder.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from brainlm_bids.bids.left_out import closed_reason, combined_of, expected_folder, one_of_each
from brainlm_bids.bids.names import Name, parse, with_prefix
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json

TEMPLATE = "MNI152NLin6Asym"
OTHER_TEMPLATE = "MNI152NLin2009cAsym"
CIFTI_SPACE = "fsLR"
# In the order of preference: what needs the least further processing first.
SPACES = (TEMPLATE, CIFTI_SPACE, "T1w", "boldref", OTHER_TEMPLATE)
IMAGES = (".nii.gz", ".nii")
CIFTI = ".dtseries.nii"
SURFACE = ".func.gii"
_AGAIN = f"run fMRIPrep again with --output-spaces {TEMPLATE}:res-2"


@dataclass(frozen=True)
class Preprocessed:
    """The files of one run in existing fMRIPrep derivatives.

    Attributes
    ----------
    stem
        Name of the raw run without its suffix.
    bold, space
        The series, and its space: one of `SPACES`; fsLR is CIFTI 91k.
    confounds
        The table of confounds.
    mask
        The brain mask of the series.
    to_template, to_t1w
        ITK transforms from the T1w to the template (for series in T1w or boldref space), and from
        the BOLD reference to the T1w (for boldref space).
    labels
        The atlas on CIFTI's grayordinates.
    """

    stem: str
    bold: Path
    space: str
    confounds: Path
    mask: Path | None = None
    to_template: Path | None = None
    to_t1w: Path | None = None
    labels: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that the run's numbers depend on."""
        found = (self.bold, self.confounds, self.mask, self.to_template, self.to_t1w)
        return tuple(path for path in found if path is not None)


def check_derivatives(root: Path) -> None:
    """Raise UserError for a folder that fMRIPrep did not write."""
    path = root / "dataset_description.json"
    try:
        description = read_json(path)
        makers = [str(one.get("Name", "")) for one in description.get("GeneratedBy", [])]
    except (UserError, AttributeError, TypeError) as error:
        raise UserError(
            f"--derivatives {root}: dataset_description.json cannot be read ({error}); give the "
            "top of fMRIPrep's output folder"
        ) from None
    # fMRIPrep 1.x wrote PipelineDescription instead.
    makers.append(str((description.get("PipelineDescription") or {}).get("Name", "")))
    names = " ".join(makers).lower().replace("_", "-")
    if "xcp" in names:
        raise UserError(
            f"--derivatives {root}: XCP-D's series are in other atlases, and BrainLM needs A424; "
            "give the fMRIPrep folder that XCP-D started from"
        )
    if "fmriprep" not in names:
        made = ", ".join(name for name in makers if name) or "an unknown program"
        raise UserError(f"--derivatives {root}: made by {made}, not by fMRIPrep")


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
        Whether it would be processed if it were complete. What fMRIPrep writes in forms that are
        not supported, or beside the run that is used, is not.
    """

    stem: str
    path: Path
    files: Preprocessed | None
    reason: str = ""
    taken: bool = True


def find_preprocessed(
    root: Path, subjects: Sequence[str], spaces: Sequence[str] = SPACES
) -> list[Candidate]:
    """Everything that looks like a run of some subjects.

    Parameters
    ----------
    root
        The top of fMRIPrep's output folder.
    subjects
        Their labels; all if empty.
    spaces
        In the order of preference: the first that a run has is taken.

    Raises
    ------
    UserError
        For a subject that is not there.
    """
    folders = [root / with_prefix("sub", label) for label in subjects] or sorted(root.glob("sub-*"))
    found = []
    for folder in folders:
        if not folder.is_dir() and not subjects:
            continue  # sub-01.html
        if not folder.is_dir():
            raise UserError(
                f"--derivatives {root}: there is no folder {folder.name}; has fMRIPrep been run "
                "for this participant?"
            )
        for session in [folder, *sorted(folder.glob("ses-*"))]:
            func, anat = session / "func", (session / "anat", folder / "anat")
            try:
                found += _runs(func, anat, spaces) if func.is_dir() else []
            except PermissionError as error:
                closed = Path(error.filename or func)
                found.append(Candidate(folder.name, closed, None, closed_reason(closed)))
        found += _elsewhere(folder, root)
    return _once_each(found, root)


def _once_each(found: Sequence[Candidate], root: Path) -> list[Candidate]:
    """The candidates, of which those with the name of another run are not taken."""
    twins = dict(one_of_each([one.path for one in found if one.files is not None], root)[1])
    return [
        one._replace(files=None, reason=twins[one.path], taken=False) if one.path in twins else one
        for one in found
    ]


def _runs(func: Path, anat: Iterable[Path], spaces: Sequence[str]) -> list[Candidate]:
    files: dict[str, list[Path]] = {}
    for path in sorted(func.iterdir()):
        files.setdefault(_raw_stem(path), []).append(path)
    warps = [path for folder in anat if folder.is_dir() for path in sorted(folder.iterdir())]
    series = {stem: [path for path in own if is_series(path)] for stem, own in files.items()}
    stems = [stem for stem, bold in series.items() if bold]
    lonely = (_lonely(stem, own) for stem, own in files.items() if not series[stem])
    runs = [one for one in lonely if one is not None]
    for stem in stems:
        reason = _not_supported(stem, series[stem], stems)
        if reason is None:
            runs.append(_one_run(stem, files[stem], warps, spaces))
        else:
            runs.append(Candidate(stem, series[stem][0], None, f"{stem}: {reason}", taken=False))
    return runs


def _lonely(stem: str, files: Sequence[Path]) -> Candidate | None:
    """A run of which only the sidecar of a series is there."""
    for path in files:
        name = parse(path.name)
        if (name.suffix, name.get("desc"), name.extension) == ("bold", "preproc", ".json"):
            reason = f"{path.name}: there is no image beside it"
            return Candidate(stem, path, None, reason, taken=False)
    return None


def _elsewhere(folder: Path, root: Path) -> Iterator[Candidate]:
    """Series of a subject that lie where fMRIPrep writes none."""
    told = set()
    for where, folders, names in os.walk(folder):
        folders.sort()
        if Path(where).name == "func" and Path(where).parent.name.startswith(("sub-", "ses-")):
            continue
        for path in (Path(where) / name for name in sorted(names)):
            stem = _raw_stem(path)
            if is_series(path) and (where, stem) not in told:
                told.add((where, stem))
                place = path.parent.relative_to(root).as_posix()
                expected = expected_folder(path).as_posix()
                reason = f"lies in {place}, and fMRIPrep writes series into {expected}; move it"
                yield Candidate(stem, path, None, f"{path.name}: {reason}", taken=False)


def is_series(path: Path) -> bool:
    """Whether a file is named like a BOLD series of fMRIPrep, of any version."""
    name = parse(path.name)
    if name.suffix == "bold":
        return name.extension in (*IMAGES, CIFTI, SURFACE)
    return _is_old(path)


def _is_old(path: Path) -> bool:
    """Whether a series has a name of fMRIPrep 1.0 or 1.1: …_bold_space-<space>_preproc.nii.gz."""
    name = parse(path.name)
    return name.suffix == "preproc" and "bold" in name.parts and name.extension in IMAGES


def _raw_stem(path: Path) -> str:
    return parse(path.name).source.removesuffix("_bold")


def _not_supported(stem: str, bold: Sequence[Path], stems: Sequence[str]) -> str | None:
    """Why a run is in no form that could be used under any option, and what to do."""
    names = [parse(path.name) for path in bold]
    if {"echo", "part"} & set(names[0].entities):
        combined = combined_of(stem, stems)
        if combined is not None:
            return f"is a part of {combined}, which is used"
        return "a single echo or part of a run, without the combined series; run fMRIPrep again"
    if all(map(_is_old, bold)):
        return "is named as by fMRIPrep 1.0 or 1.1; run fMRIPrep again (20.2 or later)"
    if any(_space(name) in SPACES for name in names):
        return None
    if any(name.extension == CIFTI for name in names):
        density = next(name.get("den") or "?" for name in names if name.extension == CIFTI)
        return (
            f"has CIFTI with {density} grayordinates alone, and A424 is defined for 91k; run "
            f"fMRIPrep again with --cifti-output 91k, or with --output-spaces {TEMPLATE}:res-2"
        )
    there = ", ".join(sorted({name.get("space") or "no space" for name in names}))
    return f"the fMRIPrep derivatives have BOLD in {there} alone; {_AGAIN}"


def _space(name: Name) -> str | None:
    """The space of a series that can be read; None for others."""
    if name.suffix == "bold" and name.extension == CIFTI and name.get("den") == "91k":
        return CIFTI_SPACE
    if name.suffix == "bold" and name.get("desc") == "preproc" and name.extension in IMAGES:
        return name.get("space", "boldref")
    return None


def _one_run(stem: str, files: list[Path], warps: list[Path], spaces: Sequence[str]) -> Candidate:
    bold = _bold_by_space(files)
    space = next((name for name in spaces if name in bold), None)
    if space is None:
        there = ", ".join(sorted(bold))
        way = " or give --denoise confounds:simple, which grayordinates allow" * (
            CIFTI_SPACE in bold and CIFTI_SPACE not in spaces
        )
        return Candidate(stem, min(bold.values()), None, (
            f"{stem}: the fMRIPrep derivatives have BOLD in {there}, not in {' or '.join(spaces)}; "
            f"{_AGAIN}{way}"
        ))  # fmt: skip

    def missing(what: str) -> Candidate:
        return Candidate(stem, bold[space], None, f"{stem}: {what}")

    confounds = _confounds(files)
    if confounds is None:
        return missing(f"there is no desc-confounds table beside {bold[space].name}")
    to_template = _transform(warps, "T1w", TEMPLATE) if space in ("T1w", "boldref") else None
    to_t1w = _boldref_to_t1w(files) if space == "boldref" else None
    if space in ("T1w", "boldref") and to_template is None:
        return missing(
            f"BOLD is in {space} space, and there is no from-T1w_to-{TEMPLATE} transform; {_AGAIN}"
        )
    if space == "boldref" and to_t1w is None:
        return missing("there is no transform from the BOLD reference to the T1w")
    mask = _mask_of(bold[space], files)
    used = Preprocessed(stem, bold[space], space, confounds, mask, to_template, to_t1w)
    return Candidate(stem, used.bold, used)


def _bold_by_space(files: list[Path]) -> dict[str, Path]:
    """The BOLD of each space; of several resolutions that of 2 mm, or the first."""
    found: dict[str, Path] = {}
    # compressed ones first: what lies beside them uncompressed is a copy for another program
    for path in sorted(files, key=lambda path: (path.suffix != ".gz", path)):
        name = parse(path.name)
        space = _space(name)
        # Of several, 2 mm is what the atlas has; 1 mm is eight times the size.
        if space is not None and (
            space not in found or (name.get("res") == "2" != parse(found[space].name).get("res"))
        ):
            found[space] = path
    return found


def _confounds(files: list[Path]) -> Path | None:
    """desc-confounds_timeseries (20.2 and later) or desc-confounds_regressors."""
    for suffix in ("timeseries", "regressors"):
        for path in files:
            name = parse(path.name)
            if (name.get("desc"), name.suffix, name.extension) == ("confounds", suffix, ".tsv"):
                return path
    return None


def _mask_of(bold: Path, files: list[Path]) -> Path | None:
    name = parse(bold.name)
    wanted = {**name.entities, "desc": "brain"}
    for path in files:
        other = parse(path.name)
        if (other.entities, other.suffix, other.extension) == (wanted, "mask", name.extension):
            return path
    return None


def _transform(files: list[Path], source: str, target: str) -> Path | None:
    for path in files:
        name = parse(path.name)
        if (name.get("from"), name.get("to"), name.suffix) == (source, target, "xfm"):
            return path
    return None


def _boldref_to_t1w(files: list[Path]) -> Path | None:
    """from-boldref (23.1 and later) or from-scanner."""
    return _transform(files, "boldref", "T1w") or _transform(files, "scanner", "T1w")


def fmriprep_version(folder: Path) -> str | None:
    """The version of fMRIPrep that a folder of derivatives records; None if it records none."""
    try:
        description = read_json(folder / "dataset_description.json")
    except UserError:
        return None
    made = description.get("GeneratedBy")
    programs = made if isinstance(made, list) else [description.get("PipelineDescription")]
    for program in programs:
        if isinstance(program, dict) and str(program.get("Name")).lower() == "fmriprep":
            return str(program["Version"]) if program.get("Version") else None
    return None
