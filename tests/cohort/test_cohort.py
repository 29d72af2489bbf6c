"""Kernels of the cohort: statistics like numpy's, decoding like scikit-learn's, votes by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from brainlm_bids.cohort import decoding, variables
from brainlm_bids.cohort.consensus import agreement, consensus
from brainlm_bids.cohort.maps import principal_map
from brainlm_bids.cohort.statistics import demeaned, pooled_statistics
from brainlm_bids.errors import UserError

# --- statistics ------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=6),
    first=st.one_of(st.none(), st.integers(1, 30)),
    block=st.integers(1, 9),
)
def test_statistics_are_numpys_on_the_stacked_array(
    seed: int, lengths: list[int], first: int | None, block: int
) -> None:
    rng = np.random.default_rng(seed)
    n_parcels = 7
    series = [rng.standard_normal((n, n_parcels)) ** 3 * 40 + rng.normal(1e4, 300) for n in lengths]
    for one in series:
        one[:, rng.random(n_parcels) < 0.2] = np.nan  # no data
    series[0][:, 0] = 10000.1  # constant
    stacked = []
    for one in series:
        kept = one - one.mean(axis=0)
        kept[:, ~(np.ptp(one, axis=0) > 0)] = np.nan
        stacked.append(kept[:first].astype(np.float32))
    table = np.concatenate(stacked).astype(np.float64)
    known = np.isfinite(table).any(axis=0)
    expected = np.full((3, n_parcels), np.nan)
    expected[:, known] = np.nanpercentile(table[:, known], [25, 50, 75], axis=0)

    order = rng.permutation(len(series))
    stores = [demeaned(series[k], first) for k in order]
    if len(stores) > 2:
        stores = [np.concatenate(stores[:2], axis=1), *stores[2:]]
    found = pooled_statistics(stores, parcels_at_a_time=block)
    np.testing.assert_array_equal(found.median, expected[1])
    np.testing.assert_array_equal(found.iqr, expected[2] - expected[0])
    np.testing.assert_array_equal(found.n_values, np.isfinite(table).sum(axis=0))


def test_first_volumes_keep_the_mean_of_the_whole_recording() -> None:
    series = np.array([[0.0], [0.0], [30.0]])
    np.testing.assert_array_equal(demeaned(series, 2), [[-10.0, -10.0]])


# --- consensus -------------------------------------------------------------------------------


def test_every_subject_has_one_vote() -> None:
    """Subject a has three recordings with network 1, b and c one each with network 2."""
    labels = [[1, 5], [1, 5], [1, 5], [2, 5], [2, 6]]
    found = consensus(labels, ["a", "a", "a", "b", "c"])
    assert found.labels.tolist() == [2, 5]
    np.testing.assert_allclose(found.probability[:2, 0], [1 / 3, 2 / 3])
    np.testing.assert_allclose(found.probability.sum(axis=0), 1)


def test_agreement_of_equal_maps_and_of_shifted_names() -> None:
    truth = np.repeat(np.arange(1, 8), 6)
    assert agreement(truth, truth)["accuracy"] == 1
    renamed = agreement(truth % 7 + 1, truth)
    assert renamed["accuracy"] == 0
    assert renamed["adjusted_rand"] == 1  # blind to names
    assert renamed["majority"] == pytest.approx(1 / 7)


# --- variables -------------------------------------------------------------------------------

PEOPLE = [f"sub-{k:02d}" for k in range(20)]


def test_numbers_are_regressed_and_words_classified() -> None:
    age = variables.make_target("age", [*map(str, range(19)), "n/a"], PEOPLE)
    assert age.is_regression
    assert age.rows.tolist() == list(range(19))
    assert "1 of 20" in age.notes[0]
    sex = variables.make_target("sex", ["m", "f"] * 10, PEOPLE)
    assert sex.classes == ("f", "m")
    assert sex.values.tolist() == [1, 0] * 10
    # two numbers are a code for two classes
    assert variables.make_target("dx", ["0", "1"] * 10, PEOPLE).classes == ("0", "1")
    rare = variables.make_target("hand", ["r"] * 9 + ["l"] * 9 + ["a", "a"], PEOPLE)
    assert rare.classes == ("l", "r")
    assert "'a'" in rare.notes[0]


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (["3"] * 20, "same value '3'"),
        (["n/a"] * 20, "no value"),
        (["1", "2", "3", *["n/a"] * 17], "3 subjects"),
        (["a"] * 18 + ["b"] * 2, "too few subjects"),
        ([f"word{k}" for k in range(20)], "20 different words"),
    ],
)
def test_what_cannot_be_decoded_is_said(column: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        variables.make_target("x", column, PEOPLE)


# --- decoding --------------------------------------------------------------------------------


def _reference_scores(features: np.ndarray, train: np.ndarray, confounds: np.ndarray) -> np.ndarray:
    """What `principal_scores` promises, the long way: wide features, scikit-learn's scaler."""
    design = np.column_stack([np.ones(len(features)), confounds])
    weights = np.linalg.lstsq(design[train], features[train], rcond=None)[0]
    clean = features - design @ weights
    scaler = make_pipeline(StandardScaler()).fit(clean[train])
    return np.asarray(scaler.transform(clean)) / np.sqrt(features.shape[1])


@pytest.mark.parametrize("kind", ["ridge", "logistic"])
def test_predictions_are_those_of_scikit_learn_on_the_wide_features(kind: str) -> None:
    """Nested search on 500 features and 30 recordings, written out with plain loops."""
    rng = np.random.default_rng(5)
    people = np.repeat([f"s{k:02d}" for k in range(15)], 2)
    features = rng.standard_normal((30, 500)) * rng.uniform(1, 100, 500) + 7
    confounds = rng.standard_normal((30, 2))
    target = rng.standard_normal(30) + 0.02 * features[:, 0]
    if kind == "logistic":
        target = (target > np.median(target)).astype(float)
    expected = np.empty(30)
    for train, test in decoding.splits(people, decoding.OUTER_FOLDS, 3):
        assert not set(people[train]) & set(people[test])
        wide = _reference_scores(features, train, confounds)
        inner = list(decoding.splits(people[train], decoding.INNER_FOLDS, 3))
        expected[test] = (_ridge if kind == "ridge" else _logistic)(
            wide, target, train, test, inner
        )
    fit = decoding._fit_ridge if kind == "ridge" else decoding._logistic(2)
    found = decoding._cross_validated(features, target[None], people, confounds, fit, 3)
    column = 0 if kind == "ridge" else 1
    np.testing.assert_allclose(found[0][:, column], expected, atol=2e-4 if column else 1e-8)


def _ridge(wide, target, train, test, inner):  # type: ignore[no-untyped-def]
    def error(alpha: float) -> float:
        total = 0.0
        for a, b in inner:
            model = Ridge(alpha=alpha).fit(wide[train[a]], target[train[a]])
            total += ((model.predict(wide[train[b]]) - target[train[b]]) ** 2).sum()
        return total

    best = min(decoding.ALPHAS, key=error)
    return Ridge(alpha=best).fit(wide[train], target[train]).predict(wide[test])


def _logistic(wide, target, train, test, inner):  # type: ignore[no-untyped-def]
    def model(penalty: float) -> LogisticRegression:
        return LogisticRegression(C=penalty, class_weight="balanced", max_iter=1000)

    def loss(penalty: float) -> float:
        total = 0.0
        for a, b in inner:
            fitted = model(penalty).fit(wide[train[a]], target[train[a]])
            chance = fitted.predict_proba(wide[train[b]])[:, 1]
            right = np.where(target[train[b]] == 1, chance, 1 - chance)
            total -= np.log(right).sum()
        return total

    best = min(decoding.INVERSE_PENALTIES, key=loss)
    return model(best).fit(wide[train], target[train]).predict_proba(wide[test])[:, 1]


def test_missing_features_are_the_training_mean() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((20, 6))
    train = np.arange(12)
    filled = features.copy()
    filled[[3, 15], 2] = np.delete(features[:12, 2], 3).mean()
    features[[3, 15], 2] = np.nan
    np.testing.assert_allclose(
        decoding.principal_scores(features, train, None),
        decoding.principal_scores(filled, train, None),
        atol=1e-12,
    )


def test_a_confound_is_not_decoded_once_it_is_regressed_out() -> None:
    """Features know of the target only what the confound knows."""
    rng = np.random.default_rng(2)
    people = [f"s{k:02d}" for k in range(60)]
    motion = rng.standard_normal(60)
    target = motion + 0.3 * rng.standard_normal(60)
    features = motion[:, None] * rng.uniform(0.5, 1, 40) + 0.5 * rng.standard_normal((60, 40))
    plain = decoding.decode(features, target, people, n_permutations=99, seed=1)
    clean = decoding.decode(
        features, target, people, confounds=motion[:, None], n_permutations=99, seed=1
    )
    assert plain.scores["r2"].value > 0.7
    assert plain.p == pytest.approx(0.01)
    assert clean.scores["r2"].high < 0.2
    assert clean.p > 0.05


def test_p_is_uniform_without_an_effect() -> None:
    """Of 60 data sets of noise, with two recordings of everybody, few are 'significant'.

    Recordings of a person are alike, and so are their targets: a shuffle of recordings instead of
    people would call most of these significant.
    """
    rng = np.random.default_rng(8)
    people = np.repeat([f"s{k:02d}" for k in range(15)], 2).tolist()
    found = []
    for _ in range(60):
        features = np.repeat(rng.standard_normal((15, 5)), 2, axis=0)
        features += 0.1 * rng.standard_normal((30, 5))
        target = np.repeat(rng.standard_normal(15), 2)
        columns = np.vstack([target, decoding.permuted_targets(target, np.array(people), 39, 0)])
        predicted = decoding._cross_validated(
            features, columns, np.array(people), None, decoding._fit_ridge, 0
        )
        found.append(decoding._permutation_p(predicted, target, columns[1:], 0))
    # binomial(60, 0.05): more than 8 has a probability of 0.3 %
    assert sum(p <= 0.05 for p in found) <= 8
    assert 0.35 < np.mean(found) < 0.65


def test_shuffled_targets_stay_with_their_persons() -> None:
    people = np.repeat(["a", "b", "c", "d"], [1, 2, 3, 2])
    constant = np.repeat([10.0, 20.0, 30.0, 40.0], [1, 2, 3, 2])
    for row in decoding.permuted_targets(constant, people, 20, 0):
        per_person = [set(row[people == name]) for name in "abcd"]
        assert all(len(values) == 1 for values in per_person)
        assert sorted(v for one in per_person for v in one) == [10, 20, 30, 40]
    blocks = np.array([1.0, 2, 3, 4, 5, 6, 7, 8])
    for row in decoding.permuted_targets(blocks, people, 20, 0):
        # only b and d have as many recordings as one another
        assert row[[0, 3, 4, 5]].tolist() == [1, 4, 5, 6]
        assert row[1:3].tolist() in ([2, 3], [7, 8])


def test_scores_by_hand() -> None:
    truth = np.array([1.0, 2, 3, 4])
    predictions = np.column_stack([[1, 2, 3, 5], [2.5] * 4])
    found = decoding._regression_scores(truth, predictions)
    assert found["mse"] == pytest.approx(0.25)
    assert found["mae"] == pytest.approx(0.25)
    assert found["r2"] == pytest.approx(1 - 1 / 5)
    chances = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
    found = decoding._classification_scores(np.array([0.0, 0, 1, 1]), chances)
    assert found["accuracy"] == found["balanced_accuracy"] == 0.5
    assert found["auc"] == pytest.approx(3 / 4)
    rng = np.random.default_rng(0)
    labels, tied = rng.integers(0, 3, 50), rng.integers(0, 5, (50, 3)) / 5
    expected = np.mean([roc_auc_score(labels == k, tied[:, k]) for k in range(3)])
    assert decoding._auc(labels, tied) == pytest.approx(expected)


def test_three_classes_are_told_apart() -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1, 2], 8)
    features = rng.standard_normal((24, 30)) + 3 * np.eye(3)[labels].repeat(10, axis=1)
    people = [f"s{k:02d}" for k in rng.permutation(24)]
    found = decoding.decode(features, labels, people, n_classes=3, n_permutations=9, seed=0)
    assert found.predictions.shape == (24, 3)
    np.testing.assert_allclose(found.predictions.sum(axis=1), 1)
    assert found.scores["accuracy"].value > 0.9
    assert found.p == pytest.approx(0.1)


def test_too_many_confounds_are_refused() -> None:
    rng = np.random.default_rng(0)
    people = [f"s{k}" for k in range(12)]
    with pytest.raises(UserError, match="9 columns of confounds"):
        decoding.decode(
            rng.standard_normal((12, 4)),
            rng.standard_normal(12),
            people,
            confounds=rng.standard_normal((12, 9)),
        )


# --- maps ------------------------------------------------------------------------------------


def test_principal_map_finds_the_plane() -> None:
    rng = np.random.default_rng(1)
    plane = rng.standard_normal((50, 2)) * [5.0, 2.0]
    axes = np.linalg.qr(rng.standard_normal((20, 2)))[0]
    found = principal_map(plane @ axes.T + 3)
    assert found.axes[0].startswith("PC 1")
    distance = np.linalg.norm(found.points[:, None] - found.points[None], axis=2)
    expected = np.linalg.norm(plane[:, None] - plane[None], axis=2)
    np.testing.assert_allclose(distance, expected, atol=1e-9)
    np.testing.assert_array_equal(principal_map(np.ones((3, 4))).points, 0)
