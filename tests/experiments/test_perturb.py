"""`brainlm perturb`: names, random sets, the null's p values, and the tables of real calls."""

from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from scipy.stats import kstest
from simulated_series import autoregressive_process, robust, write_robust
from small_models import TR, recording

from brainlm_bids import files, resources
from brainlm_bids.cohort.means import mean_over_subjects
from brainlm_bids.commands import brainlm as tools
from brainlm_bids.errors import UserError
from brainlm_bids.experiments.perturbation import (
    against_null,
    change_parcels,
    embedding_change,
    false_discovery,
    mean_change,
    perturb,
    random_sets,
)
from brainlm_bids.experiments.turned_sets import mean_distance, turned_sets
from brainlm_bids.model.checkpoint import LoadedModel
from brainlm_bids.model.embedding import embed
from brainlm_bids.parcels.selection import find_parcels

PARCELS = resources.parcels()


def test_names_numbers_and_networks() -> None:
    assert find_parcels(["R_V1", "1", "r_mst"], PARCELS) == [0, 1]
    visual = find_parcels(["VI"], PARCELS)
    assert visual == np.flatnonzero(PARCELS.network_index == 1).tolist() and len(visual) == 65
    assert find_parcels(["default mode", "DM"], PARCELS) == find_parcels(["dm"], PARCELS)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("R_V1a", "similar names: R_V1"),
        ("V1", "similar names: R_V1, L_V1"),
        ("Visuel", "similar names: Visual"),
        ("Left_I_IV", "Left_I-IV"),
        ("0", "numbers are 1 … 424"),
        ("425", "numbers are 1 … 424"),
        ("%%%", "dseg.tsv"),
    ],
)
def test_unknown_names_list_near_ones(word: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        find_parcels([word], PARCELS)


def test_all_parcels_are_too_many() -> None:
    with pytest.raises(UserError, match="all parcels"):
        find_parcels(["VI", "VS", "CE", "SM", "DM", "DS", "SC"], PARCELS)


def test_random_sets_are_as_asked_and_even() -> None:
    pool = np.arange(10, 50)
    sets = random_sets([11, 60], pool, 4000, seed=0)
    assert sets.shape == (4000, 2) and (sets[:, 0] < sets[:, 1]).all()
    counts = np.bincount(sets.ravel(), minlength=50)
    assert counts[:10].sum() == 0 and abs(counts[10:] / 200 - 1).max() < 0.3
    sides = ["L" if k % 2 else "R" for k in range(61)]
    matched = random_sets([11, 13, 60], pool, 50, seed=0, groups=sides)
    assert ((matched % 2).sum(axis=1) == 2).all()
    with pytest.raises(UserError, match="only 40 have data"):
        random_sets(list(range(40)), pool, 5, seed=0)


def test_turned_sets_are_as_compact_and_on_the_same_sides() -> None:
    pool = np.flatnonzero(np.arange(424) != 7)
    for words in (["VI"], ["R_V1", "R_V2", "R_V3"]):
        chosen = [one for one in find_parcels(words, PARCELS) if one != 7]
        call = {"pool": pool, "n_sets": 40, "seed": 0}
        turned = turned_sets(chosen, **call, xyz=PARCELS.xyz, groups=PARCELS.hemisphere)
        scattered = random_sets(chosen, **call)
        assert turned.shape == (40, len(chosen)) and not (turned == 7).any()
        assert all(len(set(one)) == len(chosen) for one in turned.tolist())
        sides = np.array(PARCELS.hemisphere)
        for one in turned:
            assert sorted(sides[one]) == sorted(sides[chosen])
        own = mean_distance(chosen, PARCELS.xyz)
        found, others = (
            np.mean([mean_distance(one, PARCELS.xyz) for one in sets])
            for sets in (turned, scattered)
        )
        assert abs(found - own) < 0.4 * abs(others - own), words
    again = turned_sets(chosen, **call, xyz=PARCELS.xyz, groups=PARCELS.hemisphere)
    assert np.array_equal(again, turned)
    with pytest.raises(UserError, match="only 2 have data"):
        turned_sets([0, 1], [2, 3], 3, 0, np.eye(4)[:, :3], ["R"] * 4)


def test_a_turned_set_of_a_rigid_world_is_itself_turned() -> None:
    """Parcels on a sphere: distances within a set are kept up to the spacing of the parcels."""
    rng = np.random.default_rng(3)
    points = rng.standard_normal((3000, 3))
    points *= 60 / np.linalg.norm(points, axis=1, keepdims=True)
    chosen = np.argsort(((points - points[0]) ** 2).sum(axis=1))[[0, 40, 160]]
    own = mean_distance(chosen, points)
    for one in turned_sets(chosen.tolist(), range(3000), 20, 1, points, ["R"] * 3000):
        assert mean_distance(one, points) == pytest.approx(own, abs=6.0)


def test_p_is_uniform_when_the_set_is_a_random_one() -> None:
    """Whatever the values are: the true set is one draw among the others."""
    rng = np.random.default_rng(1)
    values = rng.exponential(size=(20, 2000)) * rng.uniform(1, 5, 2000)
    test = against_null(values[0], values[1:])
    # p takes the values 1/20 … 1, each equally often
    assert kstest(test.p - rng.uniform(0, 0.05, 2000), "uniform").pvalue > 0.01
    assert test.p.min() == pytest.approx(0.05) and test.p.max() == 1
    assert np.mean(false_discovery(test.p) <= 0.05) < 0.01


def test_p_is_one_when_nothing_changes() -> None:
    test = against_null(np.zeros(5), np.zeros((30, 5)))
    assert (test.p == 1).all() and np.isnan(test.z).all()


def test_null_by_hand() -> None:
    null = np.array([[1.0, np.nan], [2.0, 5.0], [3.0, np.nan], [np.nan, np.nan]])
    test = against_null([3.0, np.nan], null)
    assert test.n.tolist() == [3, 1]
    assert test.p[0] == pytest.approx(2 / 4) and test.z[0] == pytest.approx(1.0)
    assert np.isnan(test.p[1]) and test.mean[1] == 5
    # Benjamini & Hochberg by hand: 3 × 0.01 / 1, 3 × 0.02 / 2, 0.5
    q = false_discovery([0.02, np.nan, 0.5, 0.01])
    assert q[[0, 2, 3]] == pytest.approx([0.03, 0.5, 0.03]) and np.isnan(q[1])


def test_changes_by_hand() -> None:
    assert mean_change([[1.0, np.nan], [-3.0, np.nan]])[0] == 2
    assert np.isnan(mean_change([[1.0, np.nan]])[1])
    found = embedding_change([[0.0, 4.0], [0.0, 0.0]], [[3.0, 0.0], [3.0, 0.0]])
    assert found[0] == pytest.approx([4, 4 / 3, 1 - 3 / 5])
    assert found[1] == pytest.approx([0, 0, 0])
    assert found[2] == pytest.approx([2, 2 / 3, 1 - 3 / np.sqrt(13)])


def test_subjects_count_once() -> None:
    values = np.array([[0.0], [2.0], [7.0], [7.0], [7.0]])
    found = mean_over_subjects(values, ["a", "b", "c", "c", "c"], seed=0)
    assert found.value == pytest.approx([3.0])
    assert 0 <= found.low[0] < 3 < found.high[0] <= 7
    assert np.isnan(mean_over_subjects(values[:1], ["a"], seed=0).low).all()


def test_a_known_embedding_gives_the_same_result(model: LoadedModel) -> None:
    series, coords = recording(60)
    changed = change_parcels(series, [3], value=0)
    call = {"parcels": [3], "tr": TR, "seed": 5, "mask_ratio": 0.5}
    before = embed(model, series, coords, tr=TR, seed=5).vectors
    one = perturb(model, series, changed, coords, **call)  # type: ignore[arg-type]
    other = perturb(model, series, changed, coords, embedded=before, **call)  # type: ignore[arg-type]
    assert np.array_equal(one.embedding, other.embedding)
    assert np.array_equal(one.reconstruction, other.reconstruction, equal_nan=True)


def test_image_models_say_nothing_where_patches_are_shared(image: LoadedModel) -> None:
    series, coords = recording(60)
    order = np.argsort(coords[:, 1], kind="stable")
    call = {"tr": TR, "seed": 5, "mask_ratio": 0.5}
    # a parcel of every row of patches: nothing is left to hide
    spread = order[::12].tolist()
    changed = change_parcels(series, spread, value=0)
    found = perturb(image, series, changed, coords, parcels=spread, **call)  # type: ignore[arg-type]
    assert np.isnan(found.reconstruction).all() and np.abs(found.embedding).max() > 0
    # the first row of patches holds 12 parcels (4 rows are padding)
    first = order[:3].tolist()
    changed = change_parcels(series, first, value=0)
    found = perturb(image, series, changed, coords, parcels=first, **call)  # type: ignore[arg-type]
    missing = np.flatnonzero(np.isnan(found.reconstruction).all(axis=0))
    assert sorted(missing) == sorted(order[:12])


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("perturb") / "out"
    for k in range(2):
        series = robust(autoregressive_process(0.6, (60, 424), seed=k))
        series[:, 7] = 0  # without data
        write_robust(folder, f"sub-{k:02d}_task-rest", series)
    return folder


def call(*arguments: object) -> int:
    return tools.main(["perturb", *(str(one) for one in arguments), "--offline"])


SMALL = ("--model", "random:tiny", "--mask-ratio", 0.75, "--n-null", 4)


def test_tables_and_maps(out: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    assert call(out, results, "--parcels", "R_V1", "8", "--set", 30, *SMALL) == 0
    stem = "group_task-rest_atlas-A424approx_model-randomtiny_desc-perturbation"
    rows = files.read_rows(results / f"{stem}_metrics.tsv")
    changed = [row["name"] for row in rows if row["changed"] == "1"]
    assert changed == ["R_V1", PARCELS.names[7]]
    missing = [row["name"] for row in rows if row["change"] == "n/a"]
    assert missing == changed  # the 13M's family predicts all others
    for row in rows:
        if row["change"] != "n/a":
            assert 0.2 - 1e-9 <= float(row["p"]) <= 1 and int(row["n_null"]) <= 4
    own = [
        files.read_rows(path)
        for path in sorted(
            results.glob("sub-*/func/*model-randomtiny_desc-perturbation_metrics.tsv")
        )
    ]
    mean = np.mean([float(table[100]["change"]) for table in own])
    assert float(rows[100]["change"]) == pytest.approx(mean, rel=1e-5)

    image = nb.load(next(results.glob("group*model-randomtiny_stat-change_statmap.nii.gz")))
    atlas = nb.load(next(out.glob("tpl-*/*dseg.nii.gz")))
    assert np.array_equal(image.affine, atlas.affine)
    values, labels = np.asarray(image.dataobj), np.asarray(atlas.dataobj)
    assert np.allclose(values[labels == 101], float(rows[100]["change"]), rtol=1e-5)
    assert np.isnan(values[labels == 1]).all() and (values[labels == 0] == 0).all()

    sidecar = files.read_json(next(results.glob("sub-00/func/*perturbation_metrics.json")))
    assert sidecar["ChangedParcelsWithoutData"] == [PARCELS.names[7]]
    assert sidecar["ChangedParcels"] == changed and sidecar["Change"] == {"value": 30.0}
    with np.load(next(results.glob("sub-00/func/*_null.npz"))) as content:
        assert content["sets"].shape == (4, 2) and not (content["sets"] == 7).any()
        assert content["null_change"].shape == (4, 424)
    table = files.read_rows(results / f"{stem}_embeddings.tsv")
    assert [row["recording"] for row in table] == ["sub-00_task-rest", "sub-01_task-rest", "mean"]
    assert all(float(row["distance"]) > 0 for row in table)
    assert (results / f"{stem}_metrics.png").read_bytes().startswith(b"\x89PNG")
    page = (results / "perturb.html").read_text()
    assert "randomtiny has random weights" in page and "set to 30 interquartile ranges" in page
    assert len(list((results / "figures").glob("*desc-response_perturb.svg"))) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--parcels", "R_V1x", "--lesion"), "similar names: R_V1"),
        (("--parcels", "R_V1", "--scale", 1), "changes nothing"),
        (("--parcels", "R_V1", "--scale", "1e999"), "finite"),
        (("--parcels", "8", "--lesion"), "none of the parcels to change has data"),
        (("--parcels", "1", "--lesion", "--participant-label", "77"), "no recording of the"),
    ],
)
def test_bad_input_is_one_line(
    out: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[object, ...],
    said: str,
) -> None:
    assert call(out, tmp_path / "r", *arguments, *SMALL) == 1
    printed = capsys.readouterr().err.strip().splitlines()
    assert said in " ".join(printed) and all(line.startswith("brainlm: ") for line in printed)


def test_usage() -> None:
    for wrong in ([], ["--lesion", "--scale", "2"], ["--parcels"]):
        with pytest.raises(SystemExit) as caught:
            tools.main(["perturb", "a", "b", "--parcels", "1", *wrong])
        assert caught.value.code == 2
