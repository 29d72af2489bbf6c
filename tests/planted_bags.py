"""Bags of tokens and series whose truth is known, and what linear readouts make of their means."""

import numpy as np

from brainlm_bids.cohort.bags import Bags
from brainlm_bids.cohort.decoding import linear_predictions

Split = tuple[np.ndarray, np.ndarray]


def marked_tokens(n_units: int, seed: int, *, classes: bool = False) -> tuple[Bags, np.ndarray]:
    """Two windows of 20 tokens (32 dimensions); the target is in three of them, at random places.

    These carry a marker, and the target along one direction; three others carry the target with
    the opposite sign and no marker, so the mean token says nothing.
    """
    rng = np.random.default_rng(seed)
    target = rng.standard_normal(n_units)
    marker, direction = np.linalg.qr(rng.standard_normal((32, 2)))[0].T
    parts = []
    for value in np.sign(target) if classes else target:
        tokens = rng.standard_normal((2, 20, 32))
        for window in tokens:
            places = rng.permutation(20)
            window[places[:3]] += 5 * marker + 2 * value * direction
            window[places[3:6]] -= 2 * value * direction
        parts.append((tokens.astype(np.float16),))
    return Bags(tuple(parts)), (target > 0).astype(float) if classes else target


def series(n_units: int, seed: int, kind: str) -> tuple[Bags, np.ndarray]:
    """Series (150, 40), of mean 0, in which ten parcels are stronger, or more active together."""
    rng = np.random.default_rng(seed)
    target = rng.uniform(-1, 1, n_units)
    parts = []
    for value in target:
        volumes = rng.standard_normal((150, 40))
        if kind == "amplitude":
            volumes[:, :10] *= 1 + 0.3 * value
        else:
            shared = 0.5 + 0.4 * value  # the variance of every parcel stays 1
            volumes[:, :10] *= np.sqrt(1 - shared)
            volumes[:, :10] += np.sqrt(shared) * rng.standard_normal((150, 1))
        parts.append(((volumes - volumes.mean(axis=0)),))
    return Bags(tuple(parts)), target


def names(n_units: int) -> np.ndarray:
    return np.array([f"sub-{k:03d}" for k in range(n_units)])


def halves(n_units: int) -> Split:
    """Two thirds to train, the rest to test."""
    return np.arange(2 * n_units // 3), np.arange(2 * n_units // 3, n_units)


def r2(predictions: np.ndarray, truth: np.ndarray) -> float:
    errors = ((predictions - truth[:, None]) ** 2).sum(axis=0)
    return float(1 - errors[0] / errors[1])


def linear_of_mean(bags: Bags, target: np.ndarray, split: Split) -> np.ndarray:
    means = [
        np.mean([window.mean(axis=0) for window in bags.windows(k)], axis=0)
        for k in range(len(bags))
    ]
    return linear_predictions(np.stack(means), target, names(len(bags)), split)
