"""How far a piece of work is: a bar on a terminal, lines with the time elsewhere.

Everything that takes longer than some seconds uses it. Both tell how many steps of how many are
done, the time since the beginning, the time that is left as soon as there is a basis for it, and
the step that runs. Where no line can be replaced, a line is written for each step, and half a
minute after the last one a sign of life: what still runs, and since when.
"""

import logging
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, Self, TextIO, TypeVar

from brainlm_bids.bars import columns, escaped, make_bar, shortened
from brainlm_bids.messages import is_terminal
from brainlm_bids.remaining import Estimate, in_words, on_a_clock, still

LOG = logging.getLogger("brainlm_bids")
T = TypeVar("T")
BEAT = 30.0  # seconds without a line until a sign of life
REDRAWN = 1.0  # seconds between two drawings of the bar
SPACING = 10.0  # seconds between two lines about the items of a loop
BAR, WIDE = 12, 64  # columns of the bar, and of a terminal that has room for one
MARGIN = 3  # columns to the right of the bar, for the ^C that a terminal echoes
LISTED = 3  # steps that a sign of life names


class Step(NamedTuple):
    """A step that is counted.

    Parameters
    ----------
    title : str
        In words, such as "sub-02, rest, run 1: head motion".
    kind : str
        Steps of one kind take about as long as one another, in proportion to their weights.
    weight : float
        Seconds that it takes elsewhere, for example; 0: none.
    """

    title: str
    kind: str = "step"
    weight: float = 1.0


class Progress:
    """The steps of a piece of work, as a context: what it started ends with the block.

    Parameters
    ----------
    unit : str
        What is counted, in the singular.
    quiet : bool
        Whether nothing is shown: in all processes of a training but the first.
    every : bool
        Whether there are lines about all steps on a terminal, too.
    spacing : float
        Seconds between two lines about steps that are done; 0: a line for each.
    compares : bool
        Whether the weights of steps of different kinds can be compared.
    running : str
        How a sign of life begins.
    stream : TextIO or None
        Where it is shown; None: standard error.
    clock : callable
        Returns seconds.

    Examples
    --------
    >>> with Progress("recording", quiet=True) as progress:
    ...     [name.upper() for name in progress.each(["a", "b"])]
    ['A', 'B']
    """

    def __init__(
        self,
        unit: str = "step",
        *,
        quiet: bool = False,
        every: bool = False,
        spacing: float = 0.0,
        compares: bool = True,
        running: str = "still running",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._unit, self._quiet, self._every, self._spacing = unit, quiet, every, spacing
        self._stream = sys.stderr if stream is None else stream
        self._running_is, self._clock, self._lock = running, clock, threading.RLock()
        self._waiting: dict[str, Step] = {}
        self._ahead: dict[str, float] = defaultdict(float)
        self._running: dict[str, tuple[Step, float]] = {}
        self._lost: dict[str, Step] = {}
        self._n_done = self._n_failed = 0
        self._detail = self._item = ""
        self._estimate = Estimate(compares=compares)
        self._began = self._told = self._first = clock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._bar: Any = None

    # --- what is to be done

    def expect(self, steps: Mapping[str, Step], instead: str | tuple[str, ...] = ()) -> None:
        """Steps that are to be done, by their keys.

        Parameters
        ----------
        steps
            The steps.
        instead
            What the keys of other steps begin with, which these replace: those that were counted
            before it was known which ones there would be.
        """
        with self._lock:
            for key in [key for key in self._waiting if instead and key.startswith(instead)]:
                self._take(key)
            for key, step in steps.items():
                self._take(key)
                self._waiting[key] = step
                self._ahead[step.kind] += step.weight
        self._draw()

    def drop(self, keys: Iterable[str]) -> None:
        """Steps that will hardly be done, since another has failed; they stay in the count."""
        with self._lock:
            for key in list(keys):
                step = self._take(key)
                if step is not None:
                    self._lost[key] = step

    # --- what happens

    def begin(self, key: str) -> None:
        """A step begins."""
        with self._lock:
            step = self._take(key) or self._lost.pop(key, None)
            if step is None:
                return
            if not self._n_done and not self._running:
                self._first = self._clock()
            self._running[key] = step, self._clock()
            self._detail = ""
        self._draw()

    def end(self, key: str, *, seconds: float | None = None, cached: bool = False) -> None:
        """A step is done; seconds: what it took, if that is known better than from here."""
        with self._lock:
            now = self._clock()
            step, since = self._running.pop(key, (None, now))
            step = self._take(key) if step is None else step
            if step is None:
                return
            self._n_done += 1
            if not cached:
                took = now - since if seconds is None else seconds
                self._estimate.add(step.kind, step.weight, took)
            last = self._n_past == self.total
            due = not self._spacing or last or now - self._told >= self._spacing
            if due and (self._every or self._bar is None):
                what = "complete already" if cached else "done"
                self._say(f"{step.title} {what} ({self.counts()})")
        self._draw()

    def fail(self, key: str) -> None:
        """A step has failed, or left its recording out; the caller tells the reason."""
        with self._lock:
            running = self._running.pop(key, None)
            if running is not None or self._take(key) is not None:
                self._n_failed += 1
        self._draw()

    def _take(self, key: str) -> Step | None:
        step = self._waiting.pop(key, None)
        if step is not None:
            self._ahead[step.kind] -= step.weight
        return step

    # --- other ways to say it

    @contextmanager
    def doing(self, title: str) -> Iterator[None]:
        """Something that is shown while it runs, and is not counted."""
        with self._lock:
            self._running[title] = Step(title, "", 0.0), self._clock()
        self._draw()
        try:
            yield
        finally:
            with self._lock:
                self._running.pop(title, None)

    @contextmanager
    def step(self, key: str) -> Iterator[None]:
        """A step of this process: it is done when the block ends, and failed if that raises."""
        self.begin(key)
        try:
            yield
        except BaseException:
            self.fail(key)
            raise
        self.end(key)

    def each(
        self, items: Sequence[T], title: Callable[[T], str] = str, kind: str = "item"
    ) -> Iterator[T]:
        """Go through items, each of which is a step: done when the next one is asked for."""
        keys = [f"{kind} {place}" for place in range(len(items))]
        self.expect({key: Step(title(item), kind) for key, item in zip(keys, items, strict=True)})
        for key, item in zip(keys, items, strict=True):
            self._item = key
            self.begin(key)
            yield item
            self.end(key)

    def found(self) -> None:
        """The item of `each` that is worked on is complete from an earlier call."""
        self.end(self._item, cached=True)

    def leave_out(self) -> None:
        """The item of `each` that is worked on has failed; the caller tells the reason."""
        self.fail(self._item)

    def within(self, items: Sequence[T], what: str) -> Iterator[T]:
        """Go through the parts of the step that runs: "what 3 of 10"."""
        for number, item in enumerate(items, start=1):
            self.note(f"{what} {number} of {len(items)}")
            yield item
        self.note("")

    def note(self, text: str) -> None:
        """What the step that runs is at; the next drawing, or sign of life, tells it."""
        self._detail = text

    # --- what is told

    @property
    def total(self) -> int:
        """Number of all steps."""
        running = sum(step.kind != "" for step, _ in self._running.values())
        return self._n_past + running + len(self._waiting)

    @property
    def _n_past(self) -> int:
        """Number of steps that are not to be waited for."""
        return self._n_done + self._n_failed + len(self._lost)

    @property
    def n_done(self) -> int:
        """Number of steps that are done."""
        return self._n_done

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._began

    def left(self) -> float | None:
        """Seconds until all is done; None where there is no basis for an estimate yet."""
        if not (self._waiting or self._running):
            return None
        now = self._clock()
        running = [(s.kind, s.weight, now - since) for s, since in self._running.values()]
        return self._estimate.left(self._ahead, running, now - self._first)

    def counts(self) -> str:
        """Steps, time, and time left, such as "12 of 28 steps, 3 min 20 s, about 4 min left"."""
        left = self.left()
        more = "" if left is None else f"{still(left)} left"
        return ", ".join(
            filter(None, (self._counted(), self._failed, in_words(self.elapsed), more))
        )

    @property
    def _failed(self) -> str:
        return f"{self._n_failed} failed" if self._n_failed else ""

    def _counted(self, *, short: bool = False) -> str:
        if not self.total:
            return ""
        if short:
            return f"{self._n_reached}/{self.total}"
        unit = self._unit if self.total == 1 else f"{self._unit}s"
        return f"{self._n_reached} of {self.total} {unit}"

    @property
    def _n_reached(self) -> int:
        """The number that is told: of steps that are done."""
        return self._n_done

    def tick(self) -> None:
        """Draw the bar again; or give a sign of life, if there was no line for half a minute."""
        with self._lock:
            if self._bar is not None:
                self._draw()
            elif self._clock() - self._told >= BEAT and (running := self._longest()):
                self._say(f"{self._running_is}: {running} ({self.counts()})")

    def _longest(self) -> str:
        """The steps that run, those of longest duration first."""
        now = self._clock()
        steps = sorted(self._running.values(), key=lambda one: one[1])
        texts = [f"{step.title}, for {in_words(now - since)}" for step, since in steps[:LISTED]]
        if self._detail and texts:
            texts[-1] += f", {self._detail}"
        more = [f"{len(steps) - LISTED} more"] if len(steps) > LISTED else []
        return "; ".join(texts + more)

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._told = self._clock()
            LOG.info(text)

    # --- the bar

    def __enter__(self) -> Self:
        self._began = self._told = self._first = self._clock()
        if self._quiet:
            return self
        if is_terminal(self._stream):
            self._bar = make_bar(self._stream)
        self._thread = threading.Thread(target=self._beat, name="progress", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Erase the bar, and end the signs of life."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock, suppress(OSError, ValueError):
            bar, self._bar = self._bar, None
            if bar is not None:
                bar.close()

    def _beat(self) -> None:
        while not self._over.wait(REDRAWN):
            self.tick()

    def _draw(self) -> None:
        with self._lock:
            if self._bar is None:
                return
            width = columns(self._stream) - MARGIN
            self._bar.total, self._bar.n = self.total, self._n_past
            # nothing to show while something else may be shown, such as a download, or before all
            # that is to be done is known
            idle = not (self._running or (self._n_past and self._waiting))
            self._bar.ncols, self._bar.bar_format = width, "" if idle else self._layout(width)
            with suppress(OSError, ValueError):  # the terminal is gone, and the work goes on
                self._bar.clear() if idle else self._bar.refresh()

    def _layout(self, width: int) -> str:
        """What the bar shows at a width, as a format of tqdm."""
        left, total = self.left(), self.total
        counts = self._counted(short=True)
        counts += " " if counts else ""
        bar = f"{{bar:{BAR}}} " if total and width >= WIDE else ""
        times = on_a_clock(self.elapsed)
        if left is not None:
            times += f" {still(left, short=True)} left"
        if self._n_failed and width >= WIDE:
            times += f", {self._failed}"
        room = width - len(counts) - (BAR + 1 if bar else 0) - len(times) - 2
        return f"{counts}{bar}{escaped(times)}  {escaped(self._current(room))}"

    def _current(self, room: int) -> str:
        """The step that has been running longest, for how long, and how many others run."""
        if not self._running:
            return ""
        step, since = min(self._running.values(), key=lambda one: one[1])
        others = f" +{len(self._running) - 1}" if len(self._running) > 1 else ""
        rest = f" {on_a_clock(self._clock() - since)}{others}"
        detail = f", {self._detail}" if self._detail else ""
        text = f"{step.title}{detail}{rest}"
        return text if len(text) <= room else shortened(f"{step.title}{rest}", room)
