"""Whether the path of a file is valid BIDS, by the rules of the BIDS validator, quickly."""

import re
from functools import cache
from pathlib import Path


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
    return validator().is_bids(f"/{path.relative_to(root).as_posix()}")
