"""What else is in an embedding: tables of site, scanner, motion and of reliability.

The same measures of every kind of features side by side: an embedding, functional connectivity, and
the embedding by an untrained network.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.cohort.folds import OUTER_FOLDS, splits
from brainlm_bids.cohort.permanova import coordinates, variance_share
from brainlm_bids.cohort.permutations import permutation_p, permuted_targets
from brainlm_bids.cohort.properties import Property
from brainlm_bids.cohort.qc_fc import Coupling, coupling
from brainlm_bids.cohort.readouts import fit_ridge, logistic_fit, rotated_features
from brainlm_bids.cohort.reliability import Pairs, fingerprint, icc, similarity
from brainlm_bids.cohort.scores import (
    Score,
    classification_scores,
    regression_scores,
    with_intervals,
)
from brainlm_bids.cohort.units import Units, group_units, unit_means
from brainlm_bids.cohort.variables import MINIMUM_PER_CLASS, MINIMUM_SUBJECTS

Array = NDArray[np.float64]
Features = Mapping[str, NDArray]
Row = dict[str, Any]
# Properties are decoded from so many recordings at most, those of subjects drawn at random.
RECORDINGS_DECODED = 1000
PERMUTATIONS = 200  # of a number that is decoded
MOTION = "mean_fd"
GOOD_ICC = 0.6

CONFOUNDING_COLUMNS = (
    *("variable", "type", "features", "measure", "value", "low", "high", "chance", "p"),
    *("n_recordings", "n_subjects"),
)
RELIABILITY_COLUMNS = (
    *("features", "measure", "value", "chance", "p", "n_features", "n_subjects", "compared"),
    "task",
)


def confounding(
    features: Features,
    properties: Sequence[Property],
    subjects: Sequence[str],
    distances: NDArray | None = None,
    *,
    seed: int = 0,
) -> tuple[list[Row], dict[str, Coupling]]:
    """Measure what features hold of the site, the scanner, motion and other properties.

    Parameters
    ----------
    features
        Name of a kind of features to an array (N, F); "connectivity" are those that `distances`
        belong to.
    properties
        Without those that have an `obstacle`. "mean_fd" is also correlated with each feature.
    subjects
        (N,) the subject of each recording.
    distances
        (F,) distance between the two parcels of each connection, in mm.
    seed
        Seed of permutations, folds and bootstraps.

    Returns
    -------
    rows
        A value for each of `CONFOUNDING_COLUMNS`.
    couplings
        With motion, for each kind of features; empty if motion is not among the properties.
    """
    rows: list[Row] = []
    couplings: dict[str, Coupling] = {}
    for name, values in features.items():
        rows += _shares(name, values, properties, subjects, seed)
        rows += _decoded(name, values, properties, subjects, seed)
        for one in properties:
            if one.name == MOTION:
                apart = distances if name == "connectivity" else None
                couplings[name], found = _coupled(name, values, one, subjects, apart, seed)
                rows += found
    order = [one.name for one in properties]
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    rows.sort(key=lambda row: (order.index(row["variable"]), measures.index(row["measure"])))
    return rows, couplings


def _row(name: str, one: Property, recordings: Sequence[int], people: Sequence[str]) -> Row:
    return {
        **dict.fromkeys(CONFOUNDING_COLUMNS),
        "variable": one.name,
        "type": "category" if one.levels else "number",
        "features": name,
        "n_recordings": len(recordings),
        "n_subjects": len({people[row] for row in recordings}),
    }


def _shares(
    name: str,
    values: NDArray,
    properties: Sequence[Property],
    subjects: Sequence[str],
    seed: int,
) -> list[Row]:
    """Shares of the variance (PERMANOVA), as they are and above chance."""
    points: dict[bytes, Array] = {}
    rows = []
    for one in properties:
        known = one.rows
        key = known.tobytes()
        if key not in points:
            chosen = values if len(known) == len(values) else values[known]
            points[key] = coordinates(chosen, seed=seed)
        people = [subjects[row] for row in known]
        share = variance_share(
            points[key], one.values[known], people, n_levels=len(one.levels), seed=seed
        )
        row = _row(name, one, known.tolist(), subjects)
        shown = {"value": share.r2, "chance": share.chance, "p": share.p}
        rows.append({**row, "measure": "variance_share", **shown})
        above = {"value": share.adjusted, "chance": 0.0, "p": share.p}
        rows.append({**row, "measure": "variance_share_adjusted", **above})
    return rows


def _decoded(
    name: str,
    values: NDArray,
    properties: Sequence[Property],
    subjects: Sequence[str],
    seed: int,
) -> list[Row]:
    """Properties decoded from features, each with its subject held out."""
    by_units: dict[Units, list[tuple[Property, Array]]] = {}
    for one in properties:
        known = _decodable(one, subjects, seed)
        if known.size:
            people = [subjects[row] for row in known]
            _, units = group_units(known.tolist(), one.values[known].tolist(), people)
            target = np.array([one.values[unit[0]] for unit in units])
            by_units.setdefault(units, []).append((one, target))
    rows = []
    for units, targets in by_units.items():
        people = [subjects[unit[0]] for unit in units]
        single = [unit[0] for unit in units]
        together = values[single]
        if max(map(len, units)) > 1:
            unit_means(values, units, out=together)
        scored = held_out(
            together, [(target, len(one.levels)) for one, target in targets], people, seed=seed
        )
        for (one, _), (measure, score, chance, p) in zip(targets, scored, strict=True):
            row = _row(name, one, [row for unit in units for row in unit], subjects)
            low, high = score.low, score.high
            shown = {"value": score.value, "low": low, "high": high, "chance": chance, "p": p}
            rows.append({**row, "measure": measure, **shown})
    return rows


def _decodable(one: Property, subjects: Sequence[str], seed: int) -> NDArray[np.int64]:
    """The recordings that a property is decoded from; none where it cannot be."""
    known, people = one.rows, np.asarray(subjects)
    if one.levels:
        kept = [
            level
            for level in range(len(one.levels))
            if len(set(people[one.values == level])) >= MINIMUM_PER_CLASS
        ]
        known = known[np.isin(one.values[known], kept)]
        if len(kept) < 2:
            return known[:0]
    names, counts = np.unique(people[known], return_counts=True)
    if len(names) < MINIMUM_SUBJECTS or np.ptp(one.values[known]) == 0:
        return known[:0]
    order = np.random.default_rng([seed, 10]).permutation(len(names))
    taken = order[np.cumsum(counts[order]) <= RECORDINGS_DECODED]
    return known[np.isin(people[known], names[taken])]


def held_out(
    features: NDArray,
    targets: Sequence[tuple[Array, int]],
    subjects: Sequence[str],
    *,
    n_permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> list[tuple[str, Score, float, float]]:
    """Decode several targets from the same features, in one cross-validation by subject.

    Parameters
    ----------
    features
        (N, F), NaN where unknown.
    targets
        Values (N,), and the number of classes; 0 for numbers.
    subjects
        (N,) the subject of each row.
    n_permutations
        Of a number. Classes are not permuted, since that takes too long.
    seed
        Seed of folds, permutations and bootstraps.

    Returns
    -------
    list of tuple
        For each target: "pearson_r" or "balanced_accuracy", its value with the 95 % bootstrap
        interval over subjects, what it is by chance, and the one-sided p value (NaN for classes).
    """
    people = np.asarray(subjects)
    shuffled = [
        permuted_targets(target, people, 0 if n_classes else n_permutations, seed)
        for target, n_classes in targets
    ]
    predictions = [
        np.empty((1 + len(rows), len(people), n_classes or 2))
        for rows, (_, n_classes) in zip(shuffled, targets, strict=True)
    ]
    for split in splits(people, OUTER_FOLDS, seed):
        rotated = rotated_features(features, split[0], None)
        for place, (target, n_classes) in enumerate(targets):
            fit = logistic_fit(n_classes) if n_classes else fit_ridge
            columns = np.vstack([target, shuffled[place]])
            predictions[place][:, split[1]] = fit(rotated, columns, split, people, seed)
    found = []
    for (target, n_classes), others, guesses in zip(targets, shuffled, predictions, strict=True):
        measure = "balanced_accuracy" if n_classes else "pearson_r"
        scored = classification_scores if n_classes else regression_scores
        score = with_intervals(scored, target, guesses[0], people, seed)[measure]
        by_chance = [
            regression_scores(one, guess)[measure]
            for one, guess in zip(others, guesses[1:], strict=True)
        ]
        known = [value for value in by_chance if np.isfinite(value)]
        chance = 1 / len(np.unique(target)) if n_classes else float(np.mean(known or [math.nan]))
        found.append((measure, score, chance, permutation_p(guesses, target, others, n_classes)))
    return found


def _coupled(
    name: str,
    values: NDArray,
    motion: Property,
    subjects: Sequence[str],
    distances: NDArray | None,
    seed: int,
) -> tuple[Coupling, list[Row]]:
    """Correlations of head motion with the features over subjects (QC-FC)."""
    of_subject: dict[str, list[int]] = {}
    for number in motion.rows.tolist():
        of_subject.setdefault(subjects[number], []).append(number)
    recordings = [*of_subject.values()]
    means = [float(motion.values[rows].mean()) for rows in recordings]
    found = coupling(values, means, recordings=recordings, distances=distances, seed=seed)
    row = _row(name, motion, motion.rows.tolist(), subjects)
    measures = {
        "median_absolute_r": (found.median, found.median_chance, found.median_p),
        "largest_absolute_r": (found.largest, found.largest_chance, found.largest_p),
        "share_significant": (found.significant, 0.0, math.nan),
    }
    if distances is not None:
        measures["distance_rho"] = (found.distance, 0.0, found.distance_p)
    rows = [
        {**row, "measure": measure, "value": value, "chance": chance, "p": p}
        for measure, (value, chance, p) in measures.items()
    ]
    return found, rows


def reliability(
    features: Features, pairs: Pairs, *, seed: int = 0
) -> tuple[list[Row], dict[str, Array]]:
    """Compare two recordings of each subject: ICC of each dimension, and fingerprinting.

    Parameters
    ----------
    features
        Name of a kind of features to an array (N, F). Of a single number, such as the mean
        framewise displacement, only the ICC is computed.
    pairs
        See `reliability.find_pairs`.
    seed
        Seed of the permutations.

    Returns
    -------
    rows
        A value for each of `RELIABILITY_COLUMNS`.
    iccs
        (F,) ICC(2,1) of each dimension, for each kind of features.
    """
    rows: list[Row] = []
    iccs: dict[str, Array] = {}
    for name, values in features.items():
        iccs[name] = icc(values, pairs.rows)
        known = iccs[name][np.isfinite(iccs[name])]
        row: Row = {
            **dict.fromkeys(RELIABILITY_COLUMNS),
            "features": name,
            "n_features": len(known),
            "n_subjects": pairs.rows.shape[1],
            "compared": pairs.kind,
            "task": pairs.task or None,
        }
        if not known.size:
            continue
        quartiles = np.percentile(known, [25, 50, 75])
        measures: list[tuple[str, float, float, float]] = [
            ("icc_median", float(quartiles[1]), 0.0, math.nan),
            ("icc_p25", float(quartiles[0]), math.nan, math.nan),
            ("icc_p75", float(quartiles[2]), math.nan, math.nan),
            ("icc_share_good", float((known >= GOOD_ICC).mean()), math.nan, math.nan),
        ]
        if values.shape[1] > 1:
            measures += _identified(values, pairs, seed)
        rows += [
            {**row, "measure": measure, "value": value, "chance": chance, "p": p}
            for measure, value, chance, p in measures
        ]
    return rows, iccs


def _identified(values: NDArray, pairs: Pairs, seed: int) -> list[tuple[str, float, float, float]]:
    raw = fingerprint(similarity(values, pairs.rows), seed=seed)
    scaled = fingerprint(similarity(values, pairs.rows, standardise=True), seed=seed)
    return [
        ("identification_rate", raw.rate, raw.chance, raw.p),
        ("identification_rate_standardised", scaled.rate, scaled.chance, scaled.p),
        ("differential_identifiability", raw.differential, 0.0, math.nan),
    ]
