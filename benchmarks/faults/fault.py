"""What a fault is, and what became of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


class NotTried(Exception):  # noqa: N818  (no error of the program)
    """A fault that cannot be made on this machine, and why."""


@dataclass(frozen=True)
class Trial:
    """One attempt.

    Parameters
    ----------
    held
        Whether what was asked for held.
    told
        What the user was told, or what went wrong.
    seconds
        How long it took.
    megabytes
        Of memory that it took at most; 0 where it was not measured.
    figure
        What else was measured, for the page; empty for none.
    """

    held: bool
    told: str
    seconds: float
    megabytes: float = 0.0
    figure: str = ""


@dataclass(frozen=True)
class Fault:
    """A row of the table.

    Parameters
    ----------
    name
        `group/name`.
    about
        What is done.
    least
        The least that is asked for.
    tried
        (an empty folder, seconds that the row may take where it could go on for ever) -> attempts.
    """

    name: str
    about: str
    least: str
    tried: Callable[[Path, float], Sequence[Trial]]


@dataclass(frozen=True)
class Result:
    """What became of a fault; `why_not`: why it could not be tried here."""

    fault: Fault
    trials: Sequence[Trial]
    seconds: float
    why_not: str = ""

    @property
    def held(self) -> int:
        """Number of attempts in which what was asked for held."""
        return sum(trial.held for trial in self.trials)

    @property
    def good(self) -> bool:
        """Whether it held in all, or could not be tried."""
        return bool(self.trials or self.why_not) and self.held == len(self.trials)

    @property
    def worst(self) -> Trial:
        """The attempt that did not hold, else the longest."""
        if self.why_not:
            return Trial(True, f"not tried: {self.why_not}", 0.0)
        return min(self.trials, key=lambda trial: (trial.held, -trial.seconds))

    @property
    def measured(self) -> str:
        """In words, for the page."""
        if self.why_not:
            return f"not tried: {self.why_not}"
        slowest = max(trial.seconds for trial in self.trials)
        text = f"{self.held} of {len(self.trials)}; at most {slowest:.2g} s"
        most = max(trial.megabytes for trial in self.trials)
        text = f"{text}, {most:.0f} MB" if most else text
        figures = [trial.figure for trial in self.trials if trial.figure]
        return f"{text}; {', '.join(figures)}" if figures else text
