"""Training, validation and test: subjects are divided into parts or folds.

A subject is never in two parts, whatever the number of its sessions and runs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.bids.names import with_prefix
from brainlm_bids.cohort.folds import splits
from brainlm_bids.cohort.probe_options import VALIDATION_FOLDS
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_rows, sha256

PARTS = ("train", "validation", "test")
SHARE = 0.1  # of the subjects, in validation and in test each
Indices = NDArray[np.int64]


def split_subjects(subjects: Iterable[str], seed: int) -> dict[str, str]:
    """Split 80/10/10 by subject.

    Subjects are ordered by a hash of seed and name, so the split depends neither on their order nor
    on the number of their recordings.

    Parameters
    ----------
    subjects
        Subjects, possibly repeated.
    seed
        Seed of the split.

    Returns
    -------
    dict
        Subject to part (train, validation or test).

    Raises
    ------
    UserError
        For fewer than three subjects.

    Examples
    --------
    >>> sorted(split_subjects(["sub-01", "sub-02", "sub-03"], seed=1).values())
    ['test', 'train', 'validation']
    """
    names = sorted(set(subjects))
    if len(names) < len(PARTS):
        raise UserError(
            f"{len(names)} subjects with a usable recording: at least three are needed to train, "
            "validate and test on different ones"
        )
    names.sort(key=lambda name: sha256(f"{seed}:{name}"))
    n_held = max(1, round(SHARE * len(names)))
    parts = ["validation"] * n_held + ["test"] * n_held
    parts += ["train"] * (len(names) - len(parts))
    return dict(sorted(zip(names, parts, strict=True)))


def read_split(file: Path) -> dict[str, str]:
    """Read which part each subject belongs to.

    Parameters
    ----------
    file
        TSV with participant_id and split.

    Returns
    -------
    dict
        Subject to part.

    Raises
    ------
    UserError
        If the file is not such a table.
    """
    try:
        rows = read_rows(file)
        pairs = [(subject_label(row["participant_id"]), row["split"]) for row in rows]
    except UserError as error:
        raise UserError(f"--split {error}") from None
    except KeyError as error:
        raise UserError(f"--split {file}: has no column {error.args[0]}") from None
    unknown = sorted({part for _, part in pairs} - set(PARTS))
    if unknown:
        raise UserError(f"--split {file}: split is {unknown[0]!r}; expected {', '.join(PARTS)}")
    split = dict(pairs)
    if len(split) < len(pairs):
        raise UserError(f"--split {file}: a participant has two rows")
    empty = [part for part in PARTS[:2] if part not in split.values()]
    if empty:
        raise UserError(f"--split {file}: no participant is in {empty[0]}")
    return split


def subject_label(text: str) -> str:
    """Return a participant as BIDS names it, with sub-.

    Parameters
    ----------
    text
        With or without sub-.

    Returns
    -------
    str
        With sub-.

    Examples
    --------
    >>> subject_label("01"), subject_label("sub-01")
    ('sub-01', 'sub-01')
    """
    return with_prefix("sub", text)


@dataclass(frozen=True)
class Fold:
    """Rows to fit, to stop the training by, and to test; whole subjects in each.

    Attributes
    ----------
    fit, validation, test
        Indices of rows.
    """

    fit: Indices
    validation: Indices
    test: Indices

    @property
    def train(self) -> Indices:
        """Rows of fit and validation."""
        return np.sort(np.concatenate([self.fit, self.validation]))


def cross_validation(subjects: Sequence[str], n_folds: int, seed: int) -> list[Fold]:
    """Make folds of whole subjects, without regard to the target, as in `cohort.folds`.

    Parameters
    ----------
    subjects
        (N,) the subject of each row.
    n_folds
        Number of folds.
    seed
        Seed of the folds.

    Returns
    -------
    list of Fold
        One per test fold.

    Raises
    ------
    UserError
        For fewer subjects than folds, or fewer than three.
    """
    people = np.asarray(subjects)
    n_subjects = len(np.unique(people))
    if not 2 <= n_folds <= n_subjects or n_subjects < 3:
        raise UserError(f"--folds {n_folds}: {n_subjects} subjects have data; expected 2 or more")
    folds = []
    for train, test in splits(people, n_folds, seed):
        fitted, held = next(splits(people[train], VALIDATION_FOLDS, seed + 1))
        folds.append(Fold(train[fitted], train[held], test))
    return folds


def one_split(subjects: Sequence[str], parts: dict[str, str]) -> list[Fold]:
    """Make a single fold.

    Parameters
    ----------
    subjects
        (N,) the subject of each row.
    parts
        Subject to train, validation or test.

    Returns
    -------
    list of Fold
        One fold.

    Raises
    ------
    UserError
        If a part is empty.
    """
    part_of_row = np.array([parts.get(subject, "") for subject in subjects])
    rows = {part: np.flatnonzero(part_of_row == part) for part in PARTS}
    empty = next((part for part, indices in rows.items() if not indices.size), None)
    if empty:
        raise UserError(f"--split: no usable recording is in {empty}")
    return [Fold(rows["train"], rows["validation"], rows["test"])]
