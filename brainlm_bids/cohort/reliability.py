"""Reliability: two recordings of each subject, compared dimension by dimension and as a whole.

References
----------
Shrout PE, Fleiss JL (1979). Intraclass correlations: uses in assessing rater reliability.
Psychological Bulletin 86:420-428.
Finn ES, Shen X, Scheinost D, et al. (2015). Functional connectome fingerprinting: identifying
individuals using patterns of brain connectivity. Nature Neuroscience 18:1664-1671.
Amico E, Goñi J (2018). The quest for identifiability in human functional connectomes. Scientific
Reports 8:8254.
"""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
MINIMUM_PAIRS = 5
PERMUTATIONS = 1000
BLOCK = 4096  # features at a time
SESSIONS, RUNS = "sessions", "runs"


class Pairs(NamedTuple):
    """Two recordings of each of some subjects.

    Attributes
    ----------
    rows
        (2, n) the recordings: the first of each subject, and the second.
    kind
        "sessions", or "runs" of one session.
    task
        The task of all of them; empty if the recordings have none.
    """

    rows: Indices
    kind: str
    task: str


def find_pairs(
    subjects: Sequence[str],
    sessions: Sequence[str | None],
    tasks: Sequence[str | None],
    labels: Sequence[str],
) -> Pairs | None:
    """Choose two recordings of each subject, of the same kind for all subjects.

    Both recordings are of one task. If at least five subjects have two sessions with the same task,
    the first two sessions of each are compared, and of these the recordings with the same label,
    or else the first ones. Otherwise the first two runs of a subject's first session that has two
    are compared. Of several tasks the one counts for which most subjects have a pair.

    Parameters
    ----------
    subjects
        (N,) the subject of each recording.
    sessions, tasks
        (N,) labels, None where a name has none.
    labels
        (N,) the rest of each recording's name, such as `run-1`.

    Returns
    -------
    Pairs or None
        None if fewer than five subjects have a pair.

    Examples
    --------
    >>> people = [f"sub-{k}" for k in range(1, 7) for _ in range(2)]
    >>> find_pairs(people, ["1", "2"] * 6, ["rest"] * 12, [""] * 12).rows[:, :3].tolist()
    [[0, 2, 4], [1, 3, 5]]
    """
    people: dict[str, list[int]] = {}
    for row, name in enumerate(subjects):
        people.setdefault(name, []).append(row)
    for kind, pair_of in ((SESSIONS, _two_sessions), (RUNS, _two_runs)):
        best: Pairs | None = None
        for task in sorted({name or "" for name in tasks}):
            found = []
            for rows in people.values():
                of_session: dict[str, dict[str, int]] = {}
                for row in rows:
                    if (tasks[row] or "") == task:
                        of_session.setdefault(sessions[row] or "", {})[labels[row]] = row
                pair = pair_of(of_session)
                if pair is not None:
                    found.append(pair)
            if len(found) >= MINIMUM_PAIRS and (best is None or len(found) > best.rows.shape[1]):
                best = Pairs(np.array(found, dtype=np.int64).T, kind, task)
        if best is not None:
            return best
    return None


def _two_sessions(of_session: dict[str, dict[str, int]]) -> tuple[int, int] | None:
    if len(of_session) < 2:
        return None
    first, second = (of_session[name] for name in sorted(of_session, key=_natural)[:2])
    common = sorted(set(first) & set(second), key=_natural)
    one, other = (common[0] if common else min(part, key=_natural) for part in (first, second))
    return first[one], second[other]


def _two_runs(of_session: dict[str, dict[str, int]]) -> tuple[int, int] | None:
    for name in sorted(of_session, key=_natural):
        runs = of_session[name]
        if len(runs) > 1:
            one, other = sorted(runs, key=_natural)[:2]
            return runs[one], runs[other]
    return None


def _natural(label: str) -> list[tuple[int, str]]:
    """A key by which 2 comes before 10.

    >>> sorted(["run-10", "run-2"], key=_natural)
    ['run-2', 'run-10']
    """
    parts = re.split(r"(\d+)", label)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts if part]


def icc(features: ArrayLike, rows: Indices) -> Array:
    """ICC(2,1) of each feature: two-way random effects, absolute agreement, one measurement.

    Parameters
    ----------
    features
        (N, F), NaN where unknown; may be memory-mapped. A subject counts for the features that are
        known in all of its recordings.
    rows
        (k, n) the k recordings of each of n subjects.

    Returns
    -------
    ndarray
        (F,) NaN for features that do not vary, or that are known of fewer than three subjects.

    Examples
    --------
    >>> scores = np.array([[9.0, 6, 8, 7, 10, 6], [2.0, 1, 4, 1, 5, 2]])
    >>> scores = np.vstack([scores, [5.0, 3, 6, 2, 6, 4], [8.0, 2, 8, 6, 9, 7]])
    >>> icc(scores.reshape(-1, 1), np.arange(24).reshape(4, 6)).round(2)  # Shrout and Fleiss
    array([0.29])
    """
    wide = features if isinstance(features, np.ndarray) else np.asarray(features)
    blocks = []
    for start in range(0, wide.shape[1], BLOCK):
        part = wide[:, start : start + BLOCK]
        blocks.append(_icc(np.stack([np.asarray(part[one], np.float64) for one in rows])))
    return np.concatenate(blocks) if blocks else np.zeros(0)


def _icc(values: Array) -> Array:
    """(F,) of k measurements (k, n, F)."""
    k = len(values)
    known = np.isfinite(values).all(axis=0)
    n = known.sum(axis=0)
    safe_n = np.maximum(n, 3)
    values = np.where(known, values, 0)
    size = np.abs(values).max(axis=(0, 1))
    values = np.where(known, values - values.sum(axis=(0, 1)) / (k * np.maximum(n, 1)), 0)
    of_subject, of_session = values.mean(axis=0), values.sum(axis=1) / safe_n
    total = (values**2).sum(axis=(0, 1))
    between = k * (of_subject**2).sum(axis=0)
    columns = safe_n * (of_session**2).sum(axis=0)
    error = np.maximum(total - between - columns, 0) / ((safe_n - 1) * (k - 1))
    between, columns = between / (safe_n - 1), columns / (k - 1)
    varies = (n >= 3) & (total > (1e-9 * size) ** 2 * k * safe_n)
    below = between + (k - 1) * error + k * (columns - error) / safe_n
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(varies & (below > 0), (between - error) / below, np.nan)


class Fingerprint(NamedTuple):
    """How well subjects are told from one another by what their recordings look like.

    Attributes
    ----------
    rate
        Share of recordings to which, in the other set, the recording of the same subject is the
        most similar; mean of both directions.
    chance, p
        Its mean over permutations of the subjects, and its one-sided p value.
    differential
        Differential identifiability: 100 × (mean correlation of a subject's two recordings − mean
        correlation of recordings of different subjects).
    """

    rate: float
    chance: float
    p: float
    differential: float


def similarity(features: ArrayLike, rows: Indices, *, standardise: bool = False) -> Array:
    """Correlate the recordings of two sets over their features.

    Parameters
    ----------
    features
        (N, F), NaN where unknown (a correlation is of the features known in both recordings); may
        be memory-mapped.
    rows
        (2, n) the recordings of the two sets.
    standardise
        Whether each feature is standardised over the 2 n recordings first, so that what all have
        in common does not count.

    Returns
    -------
    ndarray
        (n, n) correlation of recording i of the first set with j of the second.
    """
    wide = features if isinstance(features, np.ndarray) else np.asarray(features)
    n = rows.shape[1]
    pairs = _PairSums(n)
    for start in range(0, wide.shape[1], BLOCK):
        part = np.asarray(wide[:, start : start + BLOCK][rows.ravel()], dtype=np.float64)
        known = np.isfinite(part)
        part[~known] = 0
        if standardise:
            count = np.maximum(known.sum(axis=0), 1)
            part = np.where(known, part - part.sum(axis=0) / count, 0)
            scale = np.sqrt((part**2).sum(axis=0) / count)
            part /= np.where(scale > 1e-12, scale, 1)
        pairs.add(part, known)
    return pairs.correlations()


class _PairSums:
    """Sums over the features that are known in both recordings of a pair, for n × n pairs.

    Those of a feature that all recordings have differ by row or by column alone, and all but the
    products are kept as vectors: of complete features only one matrix (n, n) is made.
    """

    def __init__(self, n: int) -> None:
        self._n = n
        self._product: Array = np.zeros((n, n))
        # count, sums, and sums of squares: of the first recordings, and of the second
        self._sums: list[Array] = [np.zeros((1, 1))]
        self._sums += [np.zeros((n, 1)), np.zeros((1, n)), np.zeros((n, 1)), np.zeros((1, n))]

    def add(self, part: Array, known: NDArray[np.bool_]) -> None:
        """Add features (2 n, F), 0 where they are not known."""
        x, y = part[: self._n], part[self._n :]
        self._product += x @ y.T
        everywhere = known.all(axis=0)
        whole = np.full((1, 1), float(everywhere.sum()))
        of_x, of_y = x[:, everywhere], y[:, everywhere]
        found = [whole, of_x.sum(1)[:, None], of_y.sum(1)[None]]
        found += [(of_x**2).sum(1)[:, None], (of_y**2).sum(1)[None]]
        if not everywhere.all():
            x, y = x[:, ~everywhere], y[:, ~everywhere]
            in_x, in_y = np.split(known[:, ~everywhere].astype(np.float64), 2)
            each = (in_x, in_y), (x, in_y), (in_x, y), (x**2, in_y), (in_x, y**2)
            found = [one + a @ b.T for one, (a, b) in zip(found, each, strict=True)]
        self._sums = [total + one for total, one in zip(self._sums, found, strict=True)]

    def correlations(self) -> Array:
        """(n, n), NaN where fewer than two features are known, or none varies."""
        count, mean_x, mean_y, square_x, square_y = self._sums
        with np.errstate(invalid="ignore", divide="ignore"):
            mean_x, mean_y = mean_x / count, mean_y / count
            found = self._product / count
            found -= mean_x * mean_y
            found /= np.sqrt((square_x / count - mean_x**2) * (square_y / count - mean_y**2))
        return found


def fingerprint(
    correlations: Array, *, n_permutations: int = PERMUTATIONS, seed: int = 0
) -> Fingerprint:
    """Identify each subject by the most similar recording.

    Parameters
    ----------
    correlations
        (n, n), see `similarity`; the two recordings of a subject are on the diagonal.
    n_permutations
        Number of permutations of the subjects of the second set.
    seed
        Seed of the permutations.

    Returns
    -------
    Fingerprint
        Identification rate and differential identifiability.

    Examples
    --------
    >>> fingerprint(np.eye(10)).rate
    1.0
    """
    n = len(correlations)
    own = np.diagonal(correlations)
    n_known = np.isfinite(correlations).sum() - np.isfinite(own).sum()
    others = (np.nansum(correlations) - np.nansum(own)) / n_known if n_known else math.nan
    # a recording without a known correlation is not identified
    usable = np.where(np.isfinite(correlations), correlations, -np.inf)
    nearest = [usable.argmax(axis=1), usable.argmax(axis=0)]
    for axis, found in enumerate(nearest):
        found[~np.isfinite(usable.max(axis=1 - axis))] = -1
    rng = np.random.default_rng([seed, 9])
    orders = np.stack([np.arange(n), *(rng.permutation(n) for _ in range(n_permutations))])
    # the second set's recording of subject i is then that of subject orders[i]
    inverse = np.argsort(orders, axis=1)
    hits = (orders == nearest[0]).mean(axis=1) + (inverse == nearest[1]).mean(axis=1)
    rates = hits / 2
    return Fingerprint(
        float(rates[0]),
        float(rates[1:].mean()) if n_permutations else math.nan,
        float((rates >= rates[0] - 1e-12).mean()) if n_permutations else math.nan,
        100 * float(np.nanmean(own) - others),
    )
