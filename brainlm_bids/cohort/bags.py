"""Bags: what one unit is predicted from when its features are a set of tokens or of volumes.

A unit is a subject, or a recording where the target differs between the recordings of a subject.
Tokens of thousands of recordings do not fit in memory, so a bag holds the names of `.npy` files
and reads one window at a time from them (memory-mapped).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.errors import UserError

Part = Path | NDArray  # (W, L, D) tokens of windows, or (T, P) a series
Mask = NDArray[np.bool_] | None  # (W, L), or (T,) for a series
Values = NDArray[np.float32]


@dataclass(frozen=True)
class Bags:
    """The windows of N units, read when they are asked for.

    A series (T, P) counts as one window of T volumes.

    Attributes
    ----------
    parts
        For each of the N units its files or arrays, one per recording: (W, L, D) tokens, which may
        be float16, or (T, P) a series. All have the same number of columns.
    masks
        None, or for each part the tokens (W, L) or volumes (T,) that may be used, None for all.

    Examples
    --------
    >>> tokens = np.arange(12, dtype=np.float16).reshape(2, 3, 2)
    >>> bags = Bags(((tokens,), (tokens, tokens)))
    >>> len(bags), bags.n_windows(1), bags.width
    (2, 4, 2)
    >>> next(bags.windows(0)).tolist()
    [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    """

    parts: tuple[tuple[Part, ...], ...]
    masks: tuple[tuple[Mask, ...], ...] | None = None

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def width(self) -> int:
        """Number of columns: dimensions of a token, or parcels."""
        return int(_opened(next(part for unit in self.parts for part in unit)).shape[2])

    def select(self, rows: Sequence[int] | NDArray[np.int64]) -> "Bags":
        """Choose units.

        Parameters
        ----------
        rows
            (n,) indices of units.

        Returns
        -------
        Bags
            n units.
        """
        return self.join([[int(row)] for row in rows])

    def join(self, units: Sequence[Sequence[int]]) -> "Bags":
        """Put several bags into one, for example all the recordings of a subject.

        Parameters
        ----------
        units
            For each new unit, the indices of the bags that it consists of.

        Returns
        -------
        Bags
            As many units as `units` has.

        Examples
        --------
        >>> one = np.zeros((1, 3, 2), dtype=np.float16)
        >>> Bags(((one,), (one,), (one,))).join([[0, 2], [1]]).n_windows(0)
        2
        """
        masks = self.masks
        return Bags(
            tuple(tuple(part for row in unit for part in self.parts[row]) for unit in units),
            masks and tuple(tuple(m for row in unit for m in masks[row]) for unit in units),
        )

    def n_windows(self, unit: int) -> int:
        """Count the windows of a unit.

        Parameters
        ----------
        unit
            Index of the unit.

        Returns
        -------
        int
            The windows of all of its recordings.
        """
        return sum(len(_opened(part)) for part in self.parts[unit])

    def windows(
        self, unit: int, limit: int | None = None, rng: np.random.Generator | None = None
    ) -> Iterator[Values]:
        """Read all windows of a unit, one after the other.

        Parameters
        ----------
        unit
            Index of the unit.
        limit
            Read at most this many rows of a window, drawn at random; None for all.
        rng
            Generator of the draw, needed with `limit`.

        Yields
        ------
        ndarray
            (l, D) float32: the tokens or volumes of a window that its mask allows.
        """
        for window in range(self.n_windows(unit)):
            yield self.window(unit, window, limit, rng)

    def window(
        self,
        unit: int,
        window: int,
        limit: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> Values:
        """Read one window of a unit.

        Parameters
        ----------
        unit
            Index of the unit.
        window
            Index of the window among those of all recordings of the unit.
        limit
            Read at most this many rows, drawn at random; None for all.
        rng
            Generator of the draw, needed with `limit`.

        Returns
        -------
        ndarray
            (l, D) float32.

        Raises
        ------
        IndexError
            If the unit has no such window.
        UserError
            If the file is not one of tokens or of a series.
        """
        for place, part in enumerate(self.parts[unit]):
            content = _opened(part)
            if window >= len(content):
                window -= len(content)
                continue
            mask = self.masks[unit][place] if self.masks else None
            seen = None if mask is None else np.atleast_2d(mask)[window]
            rows = np.arange(content.shape[1]) if seen is None else np.flatnonzero(seen)
            if limit is not None and len(rows) > limit:
                assert rng is not None
                rows = np.sort(rng.choice(rows, limit, replace=False))
            if len(rows) == content.shape[1]:
                return content[window].astype(np.float32)
            return content[window][rows].astype(np.float32)
        raise IndexError(f"unit {unit} has {self.n_windows(unit)} windows")


def _opened(part: Part) -> NDArray:
    """(W, L, D), memory-mapped if it is a file; a series is one window of its volumes."""
    content = np.load(part, mmap_mode="r") if isinstance(part, Path) else part
    if content.ndim not in (2, 3):
        name = part if isinstance(part, Path) else "an array"
        raise UserError(f"{name}: has the shape {content.shape}; expected tokens or a series")
    return content if content.ndim == 3 else content[None]
