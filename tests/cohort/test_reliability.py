"""Reliability is that which was planted; the pairs are those that the rule says."""

import numpy as np
import pytest

from brainlm_bids.cohort.reliability import (
    RUNS,
    SESSIONS,
    find_pairs,
    fingerprint,
    icc,
    similarity,
)


def test_pingouin_finds_the_same_icc() -> None:
    """ICC(A,1) of pingouin 0.7.0."""
    rng = np.random.default_rng(21)
    subject = rng.standard_normal(12)
    first = subject + 0.6 * rng.standard_normal(12)
    second = subject + 0.6 * rng.standard_normal(12) + 0.5
    features = np.concatenate([first, second])[:, None]
    rows = np.arange(24).reshape(2, 12)
    assert icc(features, rows)[0] == pytest.approx(0.6109852686111297, rel=1e-9)


@pytest.mark.parametrize("planted", [0.0, 0.3, 0.8])
def test_the_planted_icc_is_found(planted: float) -> None:
    rng = np.random.default_rng(5)
    n, n_features = 60, 5000
    subject = np.sqrt(planted) * rng.standard_normal((n, n_features))
    noise = np.sqrt(1 - planted) * rng.standard_normal((2, n, n_features))
    features = (subject + noise).reshape(2 * n, n_features) + 100
    found = icc(features, np.arange(2 * n).reshape(2, n))
    assert found.shape == (n_features,)
    assert np.median(found) == pytest.approx(planted, abs=0.02)
    # a shift of the second session counts against absolute agreement
    features[n:] += 1
    shifted = icc(features, np.arange(2 * n).reshape(2, n))
    assert np.median(shifted) == pytest.approx(planted / 1.5, abs=0.02)


def test_unknown_and_constant_values() -> None:
    rng = np.random.default_rng(6)
    features = np.repeat(rng.standard_normal((8, 3)), 2, axis=0)
    features += 0.1 * rng.standard_normal((16, 3))
    rows = np.stack([np.arange(0, 16, 2), np.arange(1, 16, 2)])
    expected = icc(features, rows[:, 2:])
    features[0], features[3, 0], features[:, 2] = np.nan, np.nan, 7.7
    found = icc(features, rows)
    assert found[0] == pytest.approx(expected[0])
    assert found[1] == pytest.approx(icc(np.delete(features, [0, 1], 0), rows[:, 1:] - 2)[1])
    assert np.isnan(found[2])


def test_planted_fingerprints_are_found_and_noise_is_at_chance() -> None:
    rng = np.random.default_rng(7)
    n, n_features = 30, 9000  # more than one block
    person = rng.standard_normal((n, n_features))
    rows = np.arange(2 * n).reshape(2, n)
    common = 5 * rng.standard_normal(n_features)
    features = np.vstack([person, person]) + rng.standard_normal((2 * n, n_features)) + common
    features[4, :200] = np.nan
    for standardise in (False, True):
        found = fingerprint(similarity(features, rows, standardise=standardise))
        assert found.rate == 1
        assert found.p == pytest.approx(1 / 1001)
        assert found.chance == pytest.approx(1 / n, abs=0.005)
        assert found.differential > 1
    rates, ps = [], []
    for seed in range(100):
        noise = rng.standard_normal((2 * n, 40)) + common[:40]
        one = fingerprint(similarity(noise, rows), n_permutations=99, seed=seed)
        rates.append(one.rate)
        ps.append(one.p)
    assert np.mean(rates) == pytest.approx(1 / n, abs=0.01)
    assert np.mean(np.array(ps) <= 0.05) <= 0.12


def test_similarity_is_numpys_correlation() -> None:
    rng = np.random.default_rng(8)
    features = rng.normal(50, 1, (6, 30))
    rows = np.array([[0, 2, 4], [1, 3, 5]])
    expected = np.corrcoef(features)[np.ix_(*rows)]
    np.testing.assert_allclose(similarity(features, rows), expected, rtol=1e-7)
    features[2, :10] = np.nan
    known = similarity(features, rows)
    assert known[1, 0] == pytest.approx(np.corrcoef(features[2, 10:], features[1, 10:])[0, 1])
    # a recording without data is not identified, and hides nobody else
    features[1] = np.nan
    found = fingerprint(similarity(features, rows), n_permutations=9)
    assert np.isfinite(found.differential)
    assert found.rate <= 2 / 3


def _recordings(*names: str) -> tuple[list[str], list[str | None], list[str | None], list[str]]:
    parts = [dict(part.split("-") for part in name.split("_")) for name in names]
    return (
        [part["sub"] for part in parts],
        [part.get("ses") for part in parts],
        [part.get("task") for part in parts],
        [part.get("run", "") for part in parts],
    )


def test_sessions_come_before_runs_and_have_the_same_task_and_run() -> None:
    names = []
    for k in range(6):
        # session 10 is the third, and session 1 has no run 1
        names += [f"sub-{k}_ses-10_task-rest_run-1", f"sub-{k}_ses-1_task-rest_run-2"]
        names += [f"sub-{k}_ses-2_task-rest_run-1", f"sub-{k}_ses-2_task-rest_run-2"]
        names += [f"sub-{k}_ses-1_task-faces_run-1"]
    pairs = find_pairs(*_recordings(*names))
    assert pairs is not None
    assert (pairs.kind, pairs.task) == (SESSIONS, "rest")
    assert [names[row] for row in pairs.rows[:, 0]] == [
        "sub-0_ses-1_task-rest_run-2",
        "sub-0_ses-2_task-rest_run-2",
    ]
    assert pairs.rows.shape == (2, 6)


def test_runs_where_too_few_have_sessions_and_nothing_where_too_few_have_runs() -> None:
    names = [f"sub-{k}_ses-1_task-rest_run-{run}" for k in range(7) for run in (10, 9, 11)]
    names += [f"sub-{k}_ses-2_task-rest_run-9" for k in range(4)]  # four subjects came back
    pairs = find_pairs(*_recordings(*names))
    assert pairs is not None
    assert pairs.kind == RUNS
    assert [names[row] for row in pairs.rows[:, 6]] == [
        "sub-6_ses-1_task-rest_run-9",
        "sub-6_ses-1_task-rest_run-10",
    ]
    # two tasks in everybody are no repetition
    tasks = [f"sub-{k}_task-{task}" for k in range(7) for task in ("rest", "faces")]
    assert find_pairs(*_recordings(*tasks)) is None
    assert find_pairs(*_recordings(*[f"sub-{k}_task-rest" for k in range(9)])) is None
