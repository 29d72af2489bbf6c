"""ComBat against neuroCombat, and what it does to held-out rows."""

from pathlib import Path

import numpy as np
import pytest

from brainlm_bids import files
from brainlm_bids.cohort.harmonisation import apply, fit
from brainlm_bids.errors import UserError

GOLDEN = Path(__file__).parent / "neurocombat.tsv"
SITES = np.repeat(["a", "b", "c"], [14, 10, 16])


def scanned(seed: int = 0, n_features: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """(40, F) features with shifts and scales of three sites; and without them."""
    rng = np.random.default_rng(seed)
    member = np.searchsorted(["a", "b", "c"], SITES)
    clean = rng.normal(size=(40, n_features)) + 5 * rng.normal(size=n_features)
    shift = np.array([0.0, 2.0, -3.0])[:, None] + rng.normal(size=(3, n_features))
    scale = np.array([0.5, 1.0, 2.0])[:, None] * rng.uniform(0.8, 1.2, (3, n_features))
    return (clean - clean.mean(axis=0)) * scale[member] + clean.mean(axis=0) + shift[member], clean


@pytest.mark.parametrize("kept", [False, True])
def test_agrees_with_neurocombat(kept: bool) -> None:
    """The golden file is made by `python -m benchmarks.neurocombat`."""
    rows = files.read_rows(GOLDEN)
    columns = {name: [row[name] for row in rows] for name in rows[0]}

    def block(prefix: str) -> np.ndarray:
        chosen = [name for name in columns if name.startswith(prefix)]
        return np.array([columns[name] for name in chosen], dtype=float).T

    features, site = block("given_"), np.array(columns["site"])
    covariates = np.array([columns["sex"], columns["age"]], float).T if kept else None
    record = fit(features, site, covariates)
    expected = block("kept_" if kept else "plain_")
    assert np.abs(expected - features).max() > 1  # it does something
    np.testing.assert_allclose(
        apply(record, features, site, covariates), expected, rtol=0, atol=1e-6
    )


def test_sites_have_one_mean_and_one_spread_afterwards() -> None:
    shifted, _ = scanned()
    even = apply(fit(shifted, SITES), shifted, SITES)
    means = np.stack([even[site == SITES].mean(axis=0) for site in "abc"])
    spreads = np.stack([even[site == SITES].std(axis=0) for site in "abc"])
    assert np.ptp(means.mean(axis=1)) < 0.1
    assert np.ptp(spreads.mean(axis=1)) < 0.1


def test_held_out_rows_are_harmonised_by_what_training_rows_say() -> None:
    """Held-out rows get what their site did to others; changing them changes no estimate."""
    shifted, _ = scanned(1, 400)
    train = np.arange(40) % 2 == 0
    record = fit(shifted[train], SITES[train])
    even = apply(record, shifted[~train], SITES[~train])
    between = {
        name: np.ptp([rows[SITES[~train] == site].mean() for site in "abc"])
        for name, rows in (("before", shifted[~train]), ("after", even))
    }
    assert between["after"] < 0.3 and between["before"] > 4
    # one row at a time is the same: no held-out row has a part in what is done to another
    alone = [apply(record, row[None], [site]) for row, site in zip(shifted[~train], SITES[~train])]
    np.testing.assert_array_equal(np.concatenate(alone), even)


def test_kept_effects_survive_where_sites_differ_in_the_covariate() -> None:
    rng = np.random.default_rng(2)
    age = np.where(SITES == "a", 30.0, 60.0) + rng.normal(size=40) * 10
    effect = rng.normal(size=50)
    member = np.searchsorted(["a", "b", "c"], SITES)
    features = age[:, None] * effect + 20 * rng.normal(size=(3, 50))[member]
    features += rng.normal(size=(40, 50))
    record = fit(features, SITES, age[:, None])
    even = apply(record, features, SITES, age[:, None])
    slopes = np.polyfit(age, even, 1)[0]
    np.testing.assert_allclose(slopes, effect, atol=0.1)
    lost = np.polyfit(age, apply(fit(features, SITES), features, SITES), 1)[0]
    assert np.abs(lost / effect).mean() < 0.7


def test_columns_are_harmonised_alike_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    shifted, _ = scanned()
    whole = apply(fit(shifted, SITES), shifted, SITES)
    monkeypatch.setattr("brainlm_bids.cohort.harmonisation.BLOCK", 7)
    record = fit(shifted, SITES)
    parts = [
        apply(record.columns(slice(k, k + 7)), shifted[:, k : k + 7], SITES)
        for k in range(0, 30, 7)
    ]
    np.testing.assert_allclose(np.hstack(parts), whole, rtol=1e-12)


def test_what_does_not_vary_within_sites_says_nothing_of_them_afterwards() -> None:
    """A repetition time, for example; and a feature that one site does not know."""
    shifted, _ = scanned()
    shifted[:, 0] = np.where(SITES == "a", 0.8, 2.0)
    shifted[SITES == "b", 1] = np.nan
    shifted[3, 2] = np.nan
    even = apply(fit(shifted, SITES), shifted, SITES)
    assert np.ptp(even[:, 0]) < 1e-12
    assert np.isnan(even[SITES == "b", 1]).all() and np.isnan(even[3, 2])
    assert np.isfinite(even).sum() == even.size - 11
    alone = apply(fit(shifted[:, 3:4], SITES), shifted[:, 3:4], SITES)
    means = [alone[site == SITES].mean() for site in "abc"]
    assert np.ptp(means) < 1e-10


def test_what_cannot_be_harmonised_is_refused() -> None:
    shifted, _ = scanned()
    record = fit(shifted, SITES)
    with pytest.raises(UserError, match="'d' is not among the sites of the training rows"):
        apply(record, shifted[:1], ["d"])
    with pytest.raises(UserError, match="site 'z' has one training row"):
        fit(shifted, np.where(np.arange(40) == 0, "z", SITES))
    with pytest.raises(UserError, match="follow from the sites"):
        fit(shifted, SITES, (SITES == "a").astype(float)[:, None])
    with pytest.raises(UserError, match="4 training rows are too few"):
        fit(shifted[12:16], SITES[12:16], shifted[12:16, :3])
    # a level of a covariate that no training row has is no reason to refuse
    constant = np.zeros((40, 1))
    np.testing.assert_allclose(
        apply(fit(shifted, SITES, constant), shifted, SITES, constant),
        apply(record, shifted, SITES),
    )
