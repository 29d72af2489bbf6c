"""Ridge regression between parcels in a recording with hidden values.

Values are centred, (P, T), and 0 where hidden; visible (P, T) bool; float64. What is expensive is
done once: a covariance is decomposed once for all penalties, its inverse serves all sets of seen
parcels, and products of volumes in which nothing changes are kept.
"""

from collections.abc import Sequence
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import dtrsm
from scipy.linalg.lapack import dpotrs

from brainlm_bids.model.kriging import Kriging
from brainlm_bids.model.systems import cholesky, equal_rows, inverse

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]
PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # × the parcels' mean variance
ROUNDS = 3
FLAT = 1e-9  # smaller differences between the errors of penalties, relative, are rounding


class Volumes(NamedTuple):
    """Volumes in which the same parcels are seen: indices of volumes, and of parcels."""

    at: NDArray[np.int64]
    seen: NDArray[np.int64]
    hidden: NDArray[np.int64]

    @property
    def few_hidden(self) -> bool:
        """Whether the system of the hidden parcels is the smaller one."""
        return len(self.hidden) < len(self.seen)


def grouped(visible: Mask) -> list[Volumes]:
    """Group the volumes of a recording by the parcels that are seen.

    Parameters
    ----------
    visible
        (P, T) whether a value may be used.

    Returns
    -------
    list of Volumes
        Without those in which no parcel is seen.

    Examples
    --------
    >>> [group.at.tolist() for group in grouped(np.array([[True, False, True]]))]
    [[0, 2]]
    """
    groups = []
    for at in equal_rows(visible.T):
        shown = visible[:, at[0]]
        if shown.any():
            groups.append(Volumes(at, np.flatnonzero(shown), np.flatnonzero(~shown)))
    return groups


class Covariance:
    """A covariance of parcels, to which penalties are added.

    Parameters
    ----------
    matrix
        (P, P).
    with_gaps
        Whether values were missing, so that some eigenvalues may be negative: these are set to 0.

    Examples
    --------
    >>> Covariance(np.diag([1.0, -1.0]), with_gaps=True).inverse(1.0).round(12) + 0.0
    array([[0.5, 0. ],
           [0. , 1. ]])
    """

    def __init__(self, matrix: Matrix, *, with_gaps: bool) -> None:
        self._with_gaps = with_gaps
        if with_gaps:
            values, vectors = np.linalg.eigh(matrix)
            positive = values > 0
            self._values, self._vectors = values[positive], vectors[:, positive]
        else:
            self.matrix = matrix

    @cached_property
    def matrix(self) -> Matrix:
        """(P, P) without negative eigenvalues."""
        root = self._vectors * np.sqrt(self._values)
        return np.asarray(root @ root.T)

    def inverse(self, penalty: float) -> Matrix:
        """(C + λI)⁻¹.

        Parameters
        ----------
        penalty
            λ > 0.

        Returns
        -------
        ndarray
            (P, P), symmetric.
        """
        if not self._with_gaps:
            system = self.matrix.copy()
            np.fill_diagonal(system, system.diagonal() + penalty)
            return inverse(system)
        root = self._vectors * np.sqrt(self._values / (self._values + penalty))
        result = root @ root.T
        result /= -penalty
        np.fill_diagonal(result, result.diagonal() + 1 / penalty)
        return np.asarray(result)


class Ridge:
    """Ridge regression between parcels, for any set of seen ones.

    Systems (C_vv + λI) of many seen parcels are solved through the inverse F of C + λI, whose
    blocks for seen (v) and hidden (h) parcels give (C_vv + λI)⁻¹ = F_vv − F_vh F_hh⁻¹ F_hv.

    Parameters
    ----------
    covariance
        C of P parcels.
    penalty
        λ > 0.
    """

    def __init__(self, covariance: Covariance, penalty: float) -> None:
        self.covariance, self.penalty = covariance, penalty

    @cached_property
    def _inverse(self) -> Matrix:
        return self.covariance.inverse(self.penalty)

    def _system(self, seen: NDArray[np.int64]) -> Matrix:
        system = self.covariance.matrix[np.ix_(seen, seen)]
        np.fill_diagonal(system, system.diagonal() + self.penalty)
        return system

    def predict(self, group: Volumes, values: Matrix) -> Matrix:
        """Predict the hidden parcels from the seen.

        Parameters
        ----------
        group
            N volumes, S seen and H hidden parcels.
        values
            (P, T) of all volumes; hidden values are 0.

        Returns
        -------
        ndarray
            (H, N) predictions.
        """
        if group.few_hidden:
            blocks = self._inverse[group.hidden]
            factor = cholesky(blocks[:, group.hidden])
            return np.asarray(-dpotrs(factor, blocks @ values[:, group.at], lower=True)[0])
        factor = cholesky(self._system(group.seen))
        weights = dpotrs(factor, values[np.ix_(group.seen, group.at)], lower=True)[0]
        return np.asarray(self.covariance.matrix[np.ix_(group.hidden, group.seen)] @ weights)

    def left_out(self, groups: Sequence[Volumes], values: Matrix) -> Matrix:
        """Errors of each seen parcel when the other seen ones predict it.

        With K = (C_vv + λI)⁻¹, they are (K x)_i / K_ii.

        Parameters
        ----------
        groups
            Volumes and what is seen in them.
        values
            (P, T); hidden values are 0.

        Returns
        -------
        ndarray
            (P, T); 0 where hidden, and in other volumes.
        """
        result = np.zeros(values.shape)
        if any(group.few_hidden for group in groups):
            product, diagonal = self._inverse @ values, self._inverse.diagonal()
        for group in groups:
            at = np.ix_(group.seen, group.at)
            if not group.few_hidden:
                part = inverse(self._system(group.seen))
                result[at] = (part @ values[at]) / part.diagonal()[:, None]
                continue
            whole, weight = product[:, group.at], diagonal
            if group.hidden.size:
                blocks = self._inverse[group.hidden]
                factor = cholesky(blocks[:, group.hidden])
                # L⁻¹ F_h, by rows: (P, H) in Fortran's order is overwritten
                half = dtrsm(1.0, factor, blocks.T, side=1, lower=1, trans_a=1, overwrite_b=1).T
                whole = whole - half.T @ dtrsm(1.0, factor, whole[group.hidden], lower=1)
                weight = diagonal - np.square(half).sum(axis=0)
            result[at] = whole[group.seen] / weight[group.seen, None]
        return result


class Fit(NamedTuple):
    """Ridge regression of a recording without its parcels' means: (P, T) predictions, and how."""

    guess: Matrix
    shift: Matrix
    regression: Ridge
    groups: list[Volumes]

    def with_time(self, kriging: Kriging) -> Matrix:
        """Add to the predictions what the errors of visible volumes tell of hidden ones.

        Parameters
        ----------
        kriging
            Of the same gaps.

        Returns
        -------
        ndarray
            (P, T).
        """
        values = np.where(kriging.visible, self.guess - self.shift, 0)
        errors = self.regression.left_out(self.groups, values)
        return np.asarray(self.guess + np.where(kriging.visible, 0, kriging.predict(errors)))


def fit_ridge(centred: Matrix, visible: Mask) -> Fit:
    """Fit `baselines.ridge`.

    Parameters
    ----------
    centred
        (P, T) recording without its parcels' means; hidden values are 0.
    visible
        (P, T) whether a value may be used.

    Returns
    -------
    Fit
    """
    penalty, covariance = _penalty_and_covariance(centred, visible)
    regression = Ridge(covariance, penalty)
    shift = np.zeros((len(centred), 1))
    gaps = ~visible.all(axis=0)  # nothing changes in the other volumes
    shown, guess = visible[:, gaps], centred.copy()
    groups = grouped(shown)
    rest = centred[:, ~gaps]
    products, total = rest @ rest.T, rest.sum(axis=1, keepdims=True)
    part = _impute(guess[:, gaps], shown, groups, regression)
    for _ in range(ROUNDS):
        shift = (total + part.sum(axis=1, keepdims=True)) / centred.shape[1]
        mean_product = (products + part @ part.T) / centred.shape[1]
        regression = Ridge(Covariance(mean_product - shift * shift.T, with_gaps=False), penalty)
        part = shift + _impute(part - shift, shown, groups, regression)
    guess[:, gaps] = part
    return Fit(guess, shift, regression, grouped(visible))


def _impute(values: Matrix, visible: Mask, groups: list[Volumes], regression: Ridge) -> Matrix:
    """Keep visible values, predict masked ones; 0 where no parcel is visible."""
    result = np.where(visible, values, 0)
    for group in groups:
        result[np.ix_(group.hidden, group.at)] = regression.predict(group, result)
    return result


class _Half(NamedTuple):
    """A part of the volumes: values, its groups, and Σ x xᵀ and its number of terms, (P, P)."""

    values: Matrix
    groups: list[Volumes]
    products: Matrix
    counts: Matrix

    def covariance(self) -> Covariance:
        whole = all(not group.hidden.size for group in self.groups)
        n_seen = sum(len(group.at) for group in self.groups)
        return _covariance(
            self.products, self.counts, with_gaps=not whole or n_seen < self.values.shape[1]
        )


def _half(values: Matrix, visible: Mask) -> _Half:
    groups = grouped(visible)
    sizes = np.array([len(group.at) for group in groups], dtype=np.float64)
    shown = np.zeros((len(values), len(groups)))
    for i, group in enumerate(groups):
        shown[group.seen, i] = 1
    return _Half(values, groups, values @ values.T, (shown * sizes) @ shown.T)


def _covariance(products: Matrix, counts: Matrix, *, with_gaps: bool) -> Covariance:
    """From pairs that are visible together; those that never are count as uncorrelated."""
    return Covariance(products / np.maximum(counts, 1), with_gaps=with_gaps)


def _penalty_and_covariance(centred: Matrix, visible: Mask) -> tuple[float, Covariance]:
    """The penalty with the smallest error when each half of the volumes predicts the other.

    And the covariance of both.
    """
    variance = float((centred**2).sum() / max(int(visible.sum()), 1))
    penalties = np.array(PENALTIES) * (variance or 1.0)
    used = np.flatnonzero(visible.any(axis=0))
    middle = int(np.median(used)) + 1 if used.size else 0
    early, late = (_half(centred[:, part], visible[:, part]) for part in np.s_[:middle, middle:])
    covariance = _covariance(
        early.products + late.products, early.counts + late.counts, with_gaps=not visible.all()
    )
    if not used.size:
        return float(penalties[-1]), covariance
    tests = ((early.covariance(), late), (late.covariance(), early))

    @cache
    def error(i: int) -> float:
        total = 0.0
        for learnt, half in tests:
            found = Ridge(learnt, float(penalties[i])).left_out(half.groups, half.values)
            total += float(np.square(found).sum())
        return total

    # The error falls towards one minimum: from the middle, go downhill. Where parcels tell nothing
    # of each other it is the same for all penalties, and rounding must not choose.
    best = len(penalties) // 2
    while True:
        around = range(max(best - 1, 0), min(best + 2, len(penalties)))
        lowest = min(around, key=error)
        if error(lowest) >= error(best) * (1 - FLAT):
            return float(penalties[best]), covariance
        best = lowest
