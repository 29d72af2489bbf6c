"""Progress of one piece of work that has an extent, such as the bytes of a file."""

from typing import Any, Self

from brainlm_bids.progress import Progress, Step

BASIS = 5.0  # seconds from where on the speed tells what is left


class Amount(Progress):
    """One piece of work that is counted by its extent: bytes of a file, steps of a training.

    Parameters
    ----------
    title : str
        In words.
    extent : int
        The whole of it; 0: not known.
    reached : int
        What is there already.
    unit : str
        What is counted, in the singular; or B, for bytes.
    **more
        See `Progress`.

    Examples
    --------
    >>> with Amount("atlas", 1_000_000, unit="B", quiet=True) as amount:
    ...     amount.advance(500_000)
    ...     amount.counts().split(",")[0]
    '0.5 of 1.0 MB'
    """

    def __init__(
        self, title: str, extent: int, reached: int = 0, *, unit: str = "step", **more: Any
    ) -> None:
        super().__init__(unit, **more)
        self._title, self._extent, self._reached, self._start = title, extent, reached, reached

    def __enter__(self) -> Self:
        super().__enter__()
        self.expect({self._title: Step(self._title)})
        self.begin(self._title)
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self.end(self._title)
        self.close()

    def advance(self, number: int = 1) -> None:
        """More of it is done."""
        self._reached += number

    @property
    def total(self) -> int:
        """The whole of it."""
        return self._extent

    @property
    def _n_past(self) -> int:
        return self._reached

    @property
    def _n_reached(self) -> int:
        return self._reached

    def left(self) -> float | None:
        """Seconds until all is done; None where there is no basis for an estimate yet."""
        done, elapsed = self._reached - self._start, self.elapsed
        ahead = self._extent - self._reached
        if done <= 0 or elapsed < BASIS or ahead <= 0:
            return None
        return ahead * elapsed / done

    def _counted(self, *, short: bool = False) -> str:
        if self._unit != "B":
            return super()._counted(short=short)
        between, whole = "/" if short else " of ", f"{self._extent / 1e6:.1f}"
        known = f"{between}{whole}" if self._extent else ""
        return f"{self._reached / 1e6:.1f}{known} MB"
