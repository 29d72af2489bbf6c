"""States: blocks of events of the same kind, and the volumes of a series that show them.

Times are in seconds. Events are (onset, duration, state) in the order of their onsets, counted from
the first stored volume of the scan.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.cohort.folds import Split
from brainlm_bids.errors import UserError

# Events of one state that follow one another within this time are one block: stimuli of a block
# come every second or two, blocks are separated by longer pauses.
LARGEST_GAP = 2.0
MINIMUM_GROUPS = 2
MAXIMUM_STATES = 50
WINDOW = 200  # volumes that BrainLM sees at a time


class Block(NamedTuple):
    """A stretch of time in one state.

    Attributes
    ----------
    onset, duration
        In s; as the stimuli were presented, without a haemodynamic delay.
    state
        Its name.
    """

    onset: float
    duration: float
    state: str

    @property
    def end(self) -> float:
        """When its last event ends."""
        return self.onset + self.duration


def find_blocks(events: Iterable[tuple[float, float, str]]) -> list[Block]:
    """Join events of the same state that follow one another.

    An event of another state between two events keeps them apart. Events of different states may
    overlap; each state has its blocks.

    Parameters
    ----------
    events
        Onset, duration and state of each, in the order of their onsets.

    Returns
    -------
    list of Block
        In the order of their onsets.

    Examples
    --------
    >>> find_blocks([(0, 1, "face"), (2, 1, "face"), (10, 1, "house"), (20, 1, "face")])
    [Block(onset=0, duration=3, state='face'), Block(onset=10, duration=1, state='house'), \
Block(onset=20, duration=1, state='face')]
    """
    blocks: list[Block] = []
    for onset, duration, state in events:
        last = blocks[-1] if blocks else None
        if last is not None and last.state == state and onset - last.end <= LARGEST_GAP:
            end = max(last.end, onset + duration)
            blocks[-1] = last._replace(duration=end - last.onset)
        else:
            blocks.append(Block(onset, duration, state))
    return blocks


def block_volumes(
    blocks: Sequence[Block], *, delay: float, start: float, tr: float, n_volumes: int
) -> NDArray[np.int64]:
    """Volumes of a series that show blocks.

    A volume belongs to a block if it begins within it, shifted by the delay; a block has at least
    one volume.

    Parameters
    ----------
    blocks
        The N blocks.
    delay
        Of the haemodynamic response, in s.
    start
        Time of the series' first volume in s from the first stored volume of the scan.
    tr
        Repetition time of the series in s.
    n_volumes
        Number of volumes of the series.

    Returns
    -------
    ndarray
        (N, 2) the first volume, and the first after the last. Blocks that the series does not show
        whole are cut; (0, 0) for one of which it shows nothing.

    Raises
    ------
    ValueError
        If the repetition time is not positive.

    Examples
    --------
    >>> blocks = [Block(0.0, 10.0, "face"), Block(90.0, 20.0, "house"), Block(200.0, 5.0, "face")]
    >>> block_volumes(blocks, delay=5.0, start=0.0, tr=2.0, n_volumes=50).tolist()
    [[3, 8], [48, 50], [0, 0]]
    """
    if tr <= 0:
        raise ValueError("the repetition time must be positive")
    places = np.zeros((len(blocks), 2), dtype=np.int64)
    for row, block in enumerate(blocks):
        # rounding of times must not move a block by a volume
        first = math.ceil((block.onset + delay - start) / tr - 1e-6)
        end = max(math.ceil((block.end + delay - start) / tr - 1e-6), first + 1)
        first, end = max(first, 0), min(end, n_volumes)
        if first < end:
            places[row] = first, end
    return places


def whole_recording(state: str, *, start: float, tr: float, n_volumes: int) -> list[Block]:
    """Blocks of a recording that is in one state throughout: a model's windows.

    Parameters
    ----------
    state
        The state.
    start
        Time of the series' first volume in s.
    tr
        Repetition time of the series in s.
    n_volumes
        Number of volumes of the series.

    Returns
    -------
    list of Block
        Of 200 volumes each, together the whole recording as far as these fit; one block for a
        shorter recording.

    Examples
    --------
    >>> [block.onset for block in whole_recording("rest", start=0.0, tr=1.0, n_volumes=450)]
    [0.0, 200.0]
    """
    if n_volumes < WINDOW:
        return [Block(start, n_volumes * tr, state)]
    onsets = start + tr * WINDOW * np.arange(n_volumes // WINDOW)
    return [Block(float(onset), WINDOW * tr, state) for onset in onsets]


def state_folds(
    values: NDArray[np.float64], groups: Sequence[str], *, repeats: int, seed: int
) -> list[list[Split]]:
    """Splits of the blocks, several times with different ones.

    Parameters
    ----------
    values
        (B,) index of the state of each block.
    groups
        (B,) what is left out as a whole. If every block is a group of its own, the states are
        spread evenly over the folds, as many as the rarest state has blocks, and five at most.
    repeats
        How many times.
    seed
        Seed of the folds.

    Returns
    -------
    list of list of (train, test)
        For each repeat its splits.

    Examples
    --------
    >>> states = np.array([0.0, 1, 2, 0, 1, 2])
    >>> [(_, test), _] = state_folds(states, list("abcdef"), repeats=1, seed=0)[0]
    >>> sorted(states[test].tolist())
    [0.0, 1.0, 2.0]
    """
    # imported here: whoever plans a call does not wait for scikit-learn
    from sklearn.model_selection import StratifiedKFold

    from brainlm_bids.cohort.folds import OUTER_FOLDS, repeated_folds

    if len(set(groups)) < len(groups):
        return repeated_folds(groups, repeats, seed)
    labels = values.astype(np.int64)
    n_folds = min(OUTER_FOLDS, int(np.bincount(labels).min()))
    every = []
    for repeat in range(repeats):
        folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed + repeat)
        every.append([(train, test) for train, test in folds.split(labels, labels)])
    return every


class States(NamedTuple):
    """Blocks of all recordings that take part in the decoding of states.

    Attributes
    ----------
    rows
        (B,) indices of the blocks.
    values
        (B,) index of the state of each.
    names
        Names of the states.
    notes
        What was left out, and why.
    """

    rows: NDArray[np.int64]
    values: NDArray[np.float64]
    names: tuple[str, ...]
    notes: tuple[str, ...]


def choose_states(states: Sequence[str], groups: Sequence[str]) -> States:
    """Choose the states that can be decoded.

    A state is decoded if it can occur on both sides of a split: in at least two groups that are
    left out as a whole.

    Parameters
    ----------
    states
        The state of each of B blocks.
    groups
        What is left out as a whole for each: its subject; or its run or itself, if there is one
        subject.

    Returns
    -------
    States
        Of at least two states.

    Raises
    ------
    UserError
        If fewer than two states can be decoded, or more than 50.
    """
    counts: dict[str, list[str]] = {}
    for state, group in zip(states, groups, strict=True):
        counts.setdefault(state, []).append(group)
    kept, notes = [], []
    for state, of in sorted(counts.items()):
        if len(set(of)) >= MINIMUM_GROUPS:
            kept.append(state)
        else:
            notes.append(
                f"{state!r} is left out: all of its blocks ({len(of)}) would be left out of the "
                "training together"
            )
    if len(kept) < 2:
        found = ", ".join(f"{state!r} {len(of)}" for state, of in sorted(counts.items()))
        raise UserError(
            f"too few blocks ({found or 'none'}); two states are needed that two participants "
            "have, or that one participant has in two recordings or, if there is one, two blocks"
        )
    if len(kept) > MAXIMUM_STATES:
        raise UserError(
            f"{len(kept)} different states, for example {kept[0]!r} and {kept[1]!r}, are too many; "
            f"there may be {MAXIMUM_STATES}. Is the column one of trials rather than of states?"
        )
    rows = [row for row, state in enumerate(states) if state in kept]
    values = [kept.index(states[row]) for row in rows]
    return States(np.array(rows), np.array(values, dtype=np.float64), tuple(kept), tuple(notes))
