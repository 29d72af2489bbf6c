"""The time that is left, estimated from the steps that are done; and times in words.

A step has a kind and a weight, such as the seconds that it is known to take elsewhere. What the
steps of a kind took here tells what the others of that kind will take; a kind of which none is done
is scaled as all the others were.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

# From where on there is a basis: this share of the weight of all steps is done, or its steps took
# these seconds.
SHARE, SECONDS = 0.05, 60.0
# The share of a step that is still to be done, at least, while it runs: it may be slower.
UNDONE = 0.1


class Estimate:
    """Seconds of the steps that are done, by kind.

    Parameters
    ----------
    compares : bool
        Whether weights compare steps of different kinds. If not, nothing is known before a step of
        every kind is done.

    Examples
    --------
    >>> estimate = Estimate()
    >>> estimate.add("head motion", weight=1.0, seconds=30.0)
    >>> estimate.left({"head motion": 3.0}, [], elapsed=30.0)
    90.0
    """

    def __init__(self, *, compares: bool = True) -> None:
        self._compares = compares
        self._seconds: dict[str, float] = defaultdict(float)
        self._weights: dict[str, float] = defaultdict(float)

    def add(self, kind: str, weight: float, seconds: float) -> None:
        """A step that is done."""
        self._seconds[kind] += seconds
        self._weights[kind] += weight

    def left(
        self,
        waiting: Mapping[str, float],
        running: Iterable[tuple[str, float, float]],
        elapsed: float,
    ) -> float | None:
        """Seconds until all is done; None where there is no basis yet.

        Parameters
        ----------
        waiting
            Sum of the weights of the steps that have not begun, by kind.
        running
            Kind, weight, and seconds since its beginning of each step that runs.
        elapsed
            Seconds since the first step began: the steps that are done at a time follow from it.
        """
        running = list(running)
        done = sum(self._weights.values())
        ahead = sum(waiting.values()) + sum(weight for _, weight, _ in running)
        seconds = sum(self._seconds.values())
        kinds = {*(kind for kind, weight in waiting.items() if weight), *(k for k, _, _ in running)}
        if not self._compares and not kinds <= self._weights.keys():
            return None
        if seconds <= 0 or elapsed <= 0 or (done < SHARE * (done + ahead) and seconds < SECONDS):
            return None
        work = sum(self._expected(kind, weight) for kind, weight in waiting.items())
        for kind, weight, since in running:
            expected = self._expected(kind, weight)
            work += max(expected - since, UNDONE * expected)
        busy = seconds + sum(since for _, _, since in running)
        return work * elapsed / busy

    def _expected(self, kind: str, weight: float) -> float:
        if self._weights.get(kind, 0.0) > 0:
            return weight * self._seconds[kind] / self._weights[kind]
        return weight * sum(self._seconds.values()) / max(sum(self._weights.values()), 1e-9)


def in_words(seconds: float) -> str:
    """A time as people say it.

    >>> [in_words(s) for s in (9.4, 200, 7500, 100000)]
    ['9 s', '3 min 20 s', '2 h 5 min', '1 d 3 h']
    """
    whole = round(seconds)
    for size, unit, part, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {small}"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def roughly(seconds: float) -> str:
    """A time that is not known exactly, rounded up.

    >>> [roughly(s) for s in (20, 200, 2000, 4000, 50000, 300000)]
    ['1 min', '4 min', '35 min', '1.5 h', '14 h', '4 d']
    """
    minutes = max(1, math.ceil(seconds / 60))
    if minutes <= 10:
        return f"{minutes} min"
    if minutes <= 55:
        return f"{5 * math.ceil(minutes / 5)} min"
    hours = minutes / 60
    if hours <= 10:
        return f"{math.ceil(2 * hours) / 2:g} h"
    return f"{math.ceil(hours)} h" if hours <= 48 else f"{math.ceil(hours / 24)} d"


def still(seconds: float, *, short: bool = False) -> str:
    """A time that is left.

    >>> still(20), still(200), still(20, short=True), still(200, short=True)
    ('less than a minute', 'about 4 min', '<1 min', '~4 min')
    """
    if seconds < 50:
        return "<1 min" if short else "less than a minute"
    return f"~{roughly(seconds)}" if short else f"about {roughly(seconds)}"


def on_a_clock(seconds: float) -> str:
    """A time in few characters.

    >>> [on_a_clock(s) for s in (9.4, 200, 7500)]
    ['0:09', '3:20', '2:05:00']
    """
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
