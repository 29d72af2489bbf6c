"""The tables of an audit hold what was planted in the features, and nothing else."""

import numpy as np
import pytest

from brainlm_bids.cohort import audit
from brainlm_bids.cohort.audit import Property
from brainlm_bids.cohort.properties import is_property, make_property, obstacle
from brainlm_bids.cohort.reliability import find_pairs

N, SESSIONS = 60, 2
PEOPLE = [f"sub-{k:02d}" for k in range(N) for _ in range(SESSIONS)]


def _cohort(seed: int = 0) -> tuple[dict[str, np.ndarray], list[Property], np.ndarray]:
    """Connectivity with motion in it, an embedding with the site in it, and neither in noise."""
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(N) % 3, SESSIONS).astype(float)
    fd = rng.gamma(2, 0.1, N * SESSIONS)
    fd[4:6] = np.nan
    distance = rng.uniform(10, 150, 3000)

    def people(n: int) -> np.ndarray:
        subject = np.repeat(rng.standard_normal((N, n)), SESSIONS, axis=0)
        return subject + 0.5 * rng.standard_normal((N * SESSIONS, n))

    centre = rng.standard_normal((3, 40))
    centre = 2 * (centre - centre.mean(axis=0)) / centre.std(axis=0)
    z = np.nan_to_num((fd - np.nanmean(fd)) / np.nanstd(fd))
    features = {
        "embedding": people(40) + centre[site.astype(int)],
        "connectivity": people(3000) + 0.8 * z[:, None] * (80 - distance) / 70,
        "untrained": rng.standard_normal((N * SESSIONS, 40)),
    }
    return features, [Property("site", site, ("a", "b", "c")), Property("mean_fd", fd)], distance


@pytest.fixture(scope="module")
def table() -> dict[tuple[str, str, str], audit.Row]:
    features, properties, distance = _cohort()
    rows, couplings = audit.confounding(features, properties, PEOPLE, distance)
    assert all(list(row) == list(audit.CONFOUNDING_COLUMNS) for row in rows)
    assert {name: one.correlations.shape for name, one in couplings.items()} == {
        "embedding": (40,),
        "connectivity": (3000,),
        "untrained": (40,),
    }
    return {(row["variable"], row["features"], row["measure"]): row for row in rows}


def test_site_is_found_in_the_embedding_alone(table: dict) -> None:
    # a variance of 4 between sites, 1 between subjects and 0.25 within
    found = table["site", "embedding", "variance_share_adjusted"]
    assert found["value"] == pytest.approx(4 / 5.25, abs=0.03)
    assert found["p"] == pytest.approx(1 / 1001)
    decoded = table["site", "embedding", "balanced_accuracy"]
    assert decoded["value"] == 1
    assert decoded["chance"] == pytest.approx(1 / 3)
    assert (decoded["n_recordings"], decoded["n_subjects"]) == (120, 60)
    for features in ("connectivity", "untrained"):
        assert abs(table["site", features, "variance_share_adjusted"]["value"]) < 0.01
        assert table["site", features, "variance_share"]["p"] > 0.02
        low, high = (table["site", features, "balanced_accuracy"][key] for key in ("low", "high"))
        assert low < 1 / 3 < high + 0.05


def test_motion_is_found_in_connectivity_alone(table: dict) -> None:
    found = {
        measure: table["mean_fd", "connectivity", measure]
        for measure in ("pearson_r", "median_absolute_r", "share_significant", "distance_rho")
    }
    assert found["pearson_r"]["value"] > 0.8
    assert found["pearson_r"]["p"] < 0.01
    assert found["median_absolute_r"]["value"] > 2 * found["median_absolute_r"]["chance"]
    assert found["share_significant"]["value"] > 0.2
    assert found["distance_rho"]["value"] < -0.8
    assert found["distance_rho"]["p"] < 0.01
    assert found["distance_rho"]["n_recordings"] == 118
    assert found["distance_rho"]["n_subjects"] == 59
    assert ("mean_fd", "embedding", "distance_rho") not in table
    for features in ("embedding", "untrained"):
        assert table["mean_fd", features, "median_absolute_r"]["p"] > 0.02
        assert table["mean_fd", features, "pearson_r"]["p"] > 0.02
        assert table["mean_fd", features, "share_significant"]["value"] == 0


def test_reliability_is_the_planted_one() -> None:
    features, _, _ = _cohort()
    sessions = [str(k + 1) for _ in range(N) for k in range(SESSIONS)]
    pairs = find_pairs(PEOPLE, sessions, ["rest"] * len(PEOPLE), [""] * len(PEOPLE))
    assert pairs is not None
    motion = np.repeat(np.linspace(0, 1, N), SESSIONS)[:, None]
    rows, iccs = audit.reliability({**features, "mean_fd": motion}, pairs)
    found = {(row["features"], row["measure"]): row for row in rows}
    assert found["embedding", "icc_median"]["value"] == pytest.approx(5 / 5.25, abs=0.02)
    assert found["connectivity", "icc_median"]["value"] < 1 / 1.25
    assert abs(found["untrained", "icc_median"]["value"]) < 0.1
    assert found["untrained", "icc_share_good"]["value"] == 0
    assert iccs["embedding"].shape == (40,)
    assert found["embedding", "identification_rate"]["value"] == 1
    assert found["embedding", "identification_rate"]["chance"] == pytest.approx(1 / N, abs=0.01)
    assert found["untrained", "identification_rate"]["value"] < 0.1
    assert found["untrained", "identification_rate"]["p"] > 0.02
    assert found["mean_fd", "icc_median"]["value"] == pytest.approx(1)
    assert ("mean_fd", "identification_rate") not in found
    assert {row["compared"] for row in rows} == {"sessions"}


def test_a_large_cohort_is_decoded_from_some_of_its_subjects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit, "RECORDINGS_DECODED", 50)
    features, properties, _ = _cohort()
    found = audit._decoded("embedding", features["embedding"], properties, PEOPLE, 0)
    site, fd = ({row["variable"]: row for row in found}[name] for name in ("site", "mean_fd"))
    assert (site["n_recordings"], site["n_subjects"]) == (50, 25)
    assert site["value"] == 1
    assert fd["n_recordings"] in (49, 50)


def test_columns_are_recognised_and_obstacles_are_named() -> None:
    assert is_property("scannerModel")
    assert not is_property("centre_distance")
    assert not is_property("diagnosis")
    owners = [f"sub-{k}" for k in range(30)]
    codes, coded = make_property("site", [str(1 + k % 3) for k in range(30)], owners)
    assert codes.levels == ("1", "2", "3")
    assert coded.kind == "category"
    assert obstacle(codes, owners) is None
    unique, _ = make_property("site", [f"s{k}" for k in range(30)], owners)
    assert "more than one category" in str(obstacle(unique, owners))
    few, _ = make_property("age", ["20", "30", *[None] * 28], owners)
    assert obstacle(few, owners) == "is known of 2 subjects; 10 are needed"
    none, _ = make_property("age", [None] * 30, owners)
    assert obstacle(none, owners) == "is not known of any recording"
