"""What a hard input is, and what became of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.hard.call import Call


class Verdict(StrEnum):
    """What became of an input."""

    RIGHT = "right"  # done, as good as the benign form
    WARNED = "warned"  # done, and a warning tells
    REFUSED = "refused"  # not done, and a line tells why
    WRONG = "WRONG"


RIGHT, WARNED, REFUSED = Verdict.RIGHT, Verdict.WARNED, Verdict.REFUSED
# Median correlation over parcels with the benign form, from which a result counts as right.
RIGHT_R = 0.99


@dataclass(frozen=True)
class Case:
    """One hard input.

    Parameters
    ----------
    name
        Its own; as the label of a task or a subject where it is a file.
    about
        What is hard about it, for the page.
    expected
        The verdicts that are good.
    build
        Adds the input to the folder of its call; None where the arguments are the input.
    benign
        Name of the recording that it is compared with; empty for no comparison.
    good
        Volumes that are compared; none: all.
    arguments
        Of a call of its own; {folder} stands for the call's folder. Empty: the call is that of the
        batch.
    says
        What the line of a refusal or a warning must contain, in lower case; any of the words
        separated by "|".
    least_r
        What the correlation must reach also where a warning tells.
    like
        Arguments that must be understood as the same settings.
    """

    name: str
    about: str
    expected: tuple[Verdict, ...]
    build: Callable[[Path], None] | None = None
    benign: str = "benign"
    good: tuple[int, ...] = ()
    arguments: tuple[str, ...] = ()
    says: str = ""
    least_r: float = -1.0
    like: tuple[str, ...] = ()


@dataclass(frozen=True)
class Batch:
    """Inputs that share a call.

    Parameters
    ----------
    name
        Of the batch, and of its section on the page.
    about
        A sentence on it.
    prepare
        Writes the benign inputs into a folder.
    command
        (folder) -> the arguments of the call, without the program.
    cases
        The inputs.
    dry
        Whether the call is a dry run: what is not refused is planned.
    quick
        Whether no volume is computed, so that a test can run it.
    judge
        What is told of an input of the shared call; None: of a recording.
    after
        Adds to the result of a call of its own.
    """

    name: str
    about: str
    prepare: Callable[[Path], None]
    command: Callable[[Path], list[str]]
    cases: tuple[Case, ...]
    dry: bool = False
    quick: bool = False
    judge: "Callable[[Case, Call, Path], Result] | None" = None
    after: "Callable[[Result, Path], Result]" = lambda result, folder: result


@dataclass
class Result:
    """What a user is told of an input."""

    case: Case
    status: str = ""
    told: str = ""
    warnings: list[str] = field(default_factory=list)
    r: float | None = None
    fault: str = ""  # what must never happen: a traceback, no row, an internal error

    @property
    def found(self) -> Verdict:
        """The verdict by what happened alone."""
        if self.fault:
            return Verdict.WRONG
        if self.status in ("failed", "skipped", "refused"):
            return REFUSED if self.told else Verdict.WRONG
        if self.warnings:
            return WARNED
        if self.r is not None and not self.r >= RIGHT_R:
            return Verdict.WRONG
        return RIGHT

    @property
    def verdict(self) -> Verdict:
        """The verdict beside what was expected.

        A warning or a refusal in place of a right result is as wrong as the reverse; a line that
        does not name what it should is, too.
        """
        good = self.found in self.case.expected and self._names_it() and self._near_enough()
        return self.found if good else Verdict.WRONG

    @property
    def why(self) -> str:
        """Why the verdict is WRONG; empty if it is not."""
        if self.verdict is not Verdict.WRONG:
            return ""
        if self.fault:
            return self.fault
        if self.found not in self.case.expected:
            wanted = " or ".join(self.case.expected)
            return (
                f"{self.found if self.found is not Verdict.WRONG else self._wrong()}, not {wanted}"
            )
        if not self._near_enough():
            return f"r {self.r:.2f}, below {self.case.least_r:g}"
        return f"the line does not say {self.case.says!r}"

    def _near_enough(self) -> bool:
        return self.found is REFUSED or self.r is None or self.r >= self.case.least_r

    def _wrong(self) -> str:
        return f"done without a word, r {self.r:.2f}" if self.r is not None else "no reason given"

    def _names_it(self) -> bool:
        line = f"{self.told} {' '.join(self.warnings)}".lower()
        silent = not self.case.says or self.found is RIGHT
        return silent or any(word in line for word in self.case.says.split("|"))
