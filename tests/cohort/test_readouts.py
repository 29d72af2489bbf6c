"""Linear readouts equal scikit-learn's on the wide features."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from brainlm_bids.cohort import decoding, folds, readouts
from brainlm_bids.cohort.sites import NO_SITES


def _reference_scores(features: np.ndarray, train: np.ndarray, confounds: np.ndarray) -> np.ndarray:
    """What `rotated_features` promises, the long way: wide features, scikit-learn's scaler."""
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
    for train, test in folds.splits(people, folds.OUTER_FOLDS, 3):
        assert not set(people[train]) & set(people[test])
        wide = _reference_scores(features, train, confounds)
        inner = list(folds.splits(people[train], readouts.INNER_FOLDS, 3))
        expected[test] = (_ridge if kind == "ridge" else _logistic)(
            wide, target, train, test, inner
        )
    model = decoding._Linear(features, confounds, NO_SITES)
    outer = list(folds.splits(people, folds.OUTER_FOLDS, 3))
    task = decoding._Task(target[None], 0 if kind == "ridge" else 2)
    found = decoding._cross_validated(model, [task], people, outer, 3)[0]
    column = 0 if kind == "ridge" else 1
    np.testing.assert_allclose(found[0][:, column], expected, atol=2e-4 if column else 1e-8)


def _ridge(wide, target, train, test, inner):  # type: ignore[no-untyped-def]
    def error(alpha: float) -> float:
        total = 0.0
        for a, b in inner:
            model = Ridge(alpha=alpha).fit(wide[train[a]], target[train[a]])
            total += ((model.predict(wide[train[b]]) - target[train[b]]) ** 2).sum()
        return total

    best = min(readouts.ALPHAS, key=error)
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

    best = min(readouts.INVERSE_PENALTIES, key=loss)
    return model(best).fit(wide[train], target[train]).predict_proba(wide[test])[:, 1]


def test_missing_features_are_the_training_mean() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((20, 6))
    train = np.arange(12)
    filled = features.copy()
    filled[[3, 15], 2] = np.delete(features[:12, 2], 3).mean()
    features[[3, 15], 2] = np.nan
    np.testing.assert_allclose(
        readouts.rotated_features(features, train, None).narrow,
        readouts.rotated_features(filled, train, None).narrow,
        atol=1e-12,
    )


def test_wide_features_keep_their_scalar_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of recordings that are there twice, and if few features are taken at a time."""
    rng = np.random.default_rng(1)
    features = rng.standard_normal((30, 200)) * rng.uniform(1, 50, 200)
    features[[4, 5]] = features[[6, 7]]
    train = np.arange(20)
    wanted = _reference_scores(features, train, np.empty((30, 0)))
    for values in (readouts.VALUES, 30 * 7):
        monkeypatch.setattr(readouts, "VALUES", values)
        rotated = readouts.rotated_features(features, train, None)
        assert rotated.products is not None
        np.testing.assert_allclose(rotated.products, wanted @ wanted.T, atol=1e-10)
