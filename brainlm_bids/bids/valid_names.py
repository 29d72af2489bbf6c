"""Whether the path of a file is valid BIDS, by the rules of the BIDS validator, quickly."""

import re
from functools import cache
from pathlib import Path

# The names that nearly all images have, all of them valid. The validator decides about others: it
# takes half a second to read its rules, and to try them takes longer than to read a header.
_LABEL = "[0-9a-zA-Z]+"
_ORDINARY = re.compile(
    rf"/(sub-{_LABEL})/(?:(ses-{_LABEL})/)?(?:"
    rf"func/\1(?(2)_\2)_task-{_LABEL}(?:_acq-{_LABEL})?(?:_ce-{_LABEL})?(?:_rec-{_LABEL})?"
    rf"(?:_dir-{_LABEL})?(?:_run-[0-9]+)?(?:_echo-[0-9]+)?(?:_part-(?:mag|phase))?_(?:bold|sbref)"
    rf"|anat/\1(?(2)_\2)(?:_acq-{_LABEL})?(?:_ce-{_LABEL})?(?:_rec-{_LABEL})?(?:_run-[0-9]+)?_T1w"
    rf"|fmap/\1(?(2)_\2)(?:_acq-{_LABEL})?(?:_run-[0-9]+)?"
    r"_(?:phasediff|phase[12]|magnitude[12]|fieldmap)"
    rf"|fmap/\1(?(2)_\2)(?:_acq-{_LABEL})?_dir-{_LABEL}(?:_run-[0-9]+)?_epi"
    r")\.nii(?:\.gz)?"
)


class Validator:
    """The names that `bids_validator` accepts, with its expressions compiled once.

    The package itself compiles more of them for every file than Python keeps, which takes 0.1 s and
    more for each file that is not valid. PyBIDS asks this object in place of the package's own.
    """

    def __init__(self) -> None:
        from bids_validator import BIDSValidator

        validator = BIDSValidator()
        validator.is_bids("/README")  # reads the rules
        self._ask = validator.is_bids
        # versions before 1.15 have other rules, which they compile once
        self._rules = [re.compile(rule) for rule in getattr(validator, "regexes", None) or ()]

    def is_bids(self, path: str) -> bool:
        """Whether BIDS allows a file; path: from the top of the data set, with a leading slash."""
        if not self._rules:
            return bool(self._ask(path))
        matches = (rule.match(path[1:]) for rule in self._rules)
        first = next((match for match in matches if match), None)
        return first is not None and any(label is not None for label in first.groupdict().values())


@cache
def validator() -> Validator:
    """The validator, whose rules take half a second to read."""
    return Validator()


def is_valid(path: Path, root: Path) -> bool:
    """Whether a file of a data set has a name, and lies in a folder, that BIDS knows."""
    place = f"/{path.relative_to(root).as_posix()}"
    return is_ordinary(place) or validator().is_bids(place)


def is_ordinary(place: str) -> bool:
    """Whether a path from the top of the data set is valid at first sight; others may be, too.

    >>> is_ordinary("/sub-01/func/sub-01_task-rest_bold.nii.gz")
    True
    >>> is_ordinary("/sub-01/func/sub-02_task-rest_bold.nii.gz")
    False
    """
    return _ORDINARY.fullmatch(place) is not None
