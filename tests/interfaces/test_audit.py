"""The audit of a cohort from its files to its tables, its figure, its page and its methods text."""

from pathlib import Path

import numpy as np
import pytest

from brainlm_bids import files, resources
from brainlm_bids.bids import outputs
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.cohort.maps import plane_maps
from brainlm_bids.interfaces.cohort import audit as audit_interface
from brainlm_bids.interfaces.cohort.audit import Audit, parcel_distances
from brainlm_bids.interfaces.cohort.tables import save_planes
from brainlm_bids.parcels.connectivity import fisher_z
from brainlm_bids.report.group_audit import gather_audit
from brainlm_bids.report.methods_group import cohort_methods

N, SESSIONS, DIMENSIONS = 15, 2, 12
DISTANCES = np.random.default_rng(0).uniform(5, 150, 3000)  # fewer connections, for time
LABEL, CONFIGURATION = "m", "abc"
STAGE = "model-m_scaling-cohort_desc-audit"


def _inputs(folder: Path, *, motion: bool = True, sessions: bool = True) -> dict:
    """Three sites that the embedding knows, and motion that connectivity depends on."""
    rng = np.random.default_rng(3)
    recordings, site = [], []
    for k in range(N):
        for session in range(SESSIONS if sessions else 1):
            stem = f"sub-{k:02d}_ses-{session + 1}_task-rest"
            fd = float(rng.gamma(2, 0.1)) if motion else None
            keys = {"stem": stem, "participant_id": f"sub-{k:02d}", "task": "rest", "run": None}
            keys |= {"session_id": f"ses-{session + 1}", "mean_fd": fd, "coverage": 0.9}
            recordings.append(keys)
            site.append(k % 3)
    n, distances = len(recordings), DISTANCES
    people = np.repeat(rng.standard_normal((N, DIMENSIONS)), n // N, axis=0)
    centre = 3 * rng.standard_normal((3, DIMENSIONS))
    embedding = people + 0.5 * rng.standard_normal((n, DIMENSIONS)) + centre[site]
    values = [row["mean_fd"] for row in recordings]
    # one more recording than the model embedded
    connectivity = 0.2 * rng.standard_normal((n + 1, len(distances)), dtype=np.float32)
    if motion:
        z = (np.array(values) - np.mean(values)) / np.std(values)
        connectivity[1:] += 0.2 * z[:, None] * (60 - distances).astype(np.float32) / 60
    for name, array in (("embedding", embedding), ("connectivity", connectivity)):
        np.save(folder / f"{name}.npy", array)
    save_planes(folder / "planes.npz", plane_maps(embedding, seed=1))
    np.save(folder / "untrained.npy", rng.standard_normal((n, DIMENSIONS)))
    properties = [{"name": "site", "values": site, "levels": ["a", "b", "c"]}]
    properties += [{"name": "mean_fd", "values": values, "levels": []}] if motion else []
    return {
        "naming": Naming(str(folder / "out"), "group_task-rest", "S", "A424", "cohort"),
        "recordings": recordings,
        "sidecar": {"RandomSeed": 1},
        "label": LABEL,
        "embedding": str(folder / "embedding.npy"),
        "connectivity": str(folder / "connectivity.npy"),
        "planes": str(folder / "planes.npz"),
        "rows": [*range(1, n + 1)],
        "dimensions": [f"cls_{k:04d}" for k in range(DIMENSIONS)],
        "properties": properties,
        "not_measured": {"coverage": "is the same in all recordings"},
        "notes": {},
        "seed": 1,
        "configuration": CONFIGURATION,
    }


def _run(folder: Path, inputs: dict) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit_interface, "parcel_distances", lambda: DISTANCES)
        Audit(**inputs).run(cwd=str(folder))


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Naming:
    folder = tmp_path_factory.mktemp("audit")
    inputs = {**_inputs(folder), "untrained": str(folder / "untrained.npy")}
    naming = inputs["naming"]
    _run(folder, inputs)
    for key in ("group_recordings", "group_embeddings"):
        row = {"recording": "x", "status": "included", "participant_id": "sub-00"}
        path = naming.path(key, model=LABEL)
        files.write_tsv(path, list(row), [[value] for value in row.values()])
        files.write_json(path.with_suffix(".json"), {})
    return naming


def test_tables_hold_what_was_planted(audited: Naming) -> None:
    found = {
        (row["variable"], row["features"], row["measure"]): row
        for row in files.read_rows(audited.path("group_confounding", model=LABEL))
    }
    assert float(found["site", "embedding", "variance_share_adjusted"]["value"]) > 0.5
    assert float(found["site", "embedding", "balanced_accuracy"]["value"]) > 0.9
    assert float(found["site", "connectivity", "variance_share"]["p"]) > 0.02
    assert float(found["site", "untrained", "variance_share"]["p"]) > 0.02
    # the rows of connectivity are those of the embedded recordings
    assert float(found["mean_fd", "connectivity", "distance_rho"]["value"]) < -0.3
    assert float(found["mean_fd", "connectivity", "distance_rho"]["p"]) < 0.02
    assert found["mean_fd", "embedding", "share_significant"]["value"] == "0"
    reliable = {
        (row["features"], row["measure"]): row
        for row in files.read_rows(audited.path("group_reliability", model=LABEL))
    }
    assert float(reliable["embedding", "identification_rate"]["value"]) > 0.9
    assert reliable["embedding", "icc_median"]["compared"] == "sessions"
    assert reliable["embedding", "icc_median"]["task"] == "rest"
    assert float(reliable["untrained", "identification_rate"]["p"]) > 0.02
    assert abs(float(reliable["mean_fd", "icc_median"]["value"])) < 0.6
    sidecar = files.read_json(audited.path("group_reliability", model=LABEL, extension=".json"))
    assert sidecar["Recordings"][1] == ["sub-01_ses-1_task-rest", "sub-01_ses-2_task-rest"]
    dimensions = files.read_rows(audited.path("group_dimensions", model=LABEL))
    assert [row["dimension"] for row in dimensions][:2] == ["cls_0000", "cls_0001"]
    median = np.median([float(row["icc"]) for row in dimensions])
    assert median == pytest.approx(float(reliable["embedding", "icc_median"]["value"]), rel=1e-4)
    assert outputs.is_complete(Path(audited.output_dir), audited.stem, STAGE, CONFIGURATION)


def test_maps_have_the_recordings_and_what_goes_with_them(audited: Naming) -> None:
    path = audited.path("group_map", model=LABEL)
    rows = files.read_rows(path)
    assert len(rows) == N * SESSIONS and rows[0]["recording"] == "sub-00_ses-1_task-rest"
    about = files.read_json(path.with_suffix(".json"))["Maps"]
    assert {"embedding_pca", "connectivity_pca", "untrained_pca"} <= set(about)
    assert about["embedding_pca"]["VarianceShares"]["site"]["AboveChance"] > 0.8
    assert about["untrained_pca"]["VarianceShares"]["site"]["AboveChance"] < 0.4
    # the three planted sites are apart
    places = np.array([[float(row[f"embedding_pca_{k}"]) for k in (1, 2)] for row in rows])
    site = np.arange(len(rows)) // SESSIONS % 3
    centres = np.stack([places[site == k].mean(axis=0) for k in range(3)])
    nearest = np.linalg.norm(places[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == site).mean() > 0.9


def test_the_report_and_the_methods_say_it_in_words(audited: Naming) -> None:
    audit = gather_audit(audited, LABEL)
    assert audit is not None
    assert audit.features == ["Embedding", "Functional connectivity", "Untrained network"]
    lines = {(name, measure): cells for name, measure, cells in audit.lines}
    share = lines["site", "Share of the variance, above chance"]
    assert share[0].endswith("%; p = 0.001") and len(share) == 3
    decoded = lines["site", "Decoded in held-out participants, balanced accuracy"]
    assert "]; chance 0.33" in decoded[0]
    rho = lines["mean_fd", "ρ of these r with the distance of the parcels"]
    assert rho[0] == "–" and rho[1].startswith("-0.")
    assert audit.summary.startswith("The embedding differs with site (")
    assert audit.not_measured == [("coverage", "is the same in all recordings")]
    assert audit.compared == "two sessions of each of 15 participants (task rest)"
    assert audit.reliability[0][0] == "Embedding"
    assert audit.reliability[0][3] == "93.3 %; chance 7.0 %; p = 0.001"
    assert "Mean FD" in [row[0] for row in audit.reliability]
    text = " ".join(cohort_methods(audited, [LABEL]).markdown().split())
    assert "goes with mean_fd and site was" in text or "goes with site and mean_fd was" in text
    assert "1000 permutations between participants (Winkler et al., 2015)" in text
    assert "(QC-FC) (Power et al., 2012; Ciric et al., 2017)" in text
    assert "Two sessions of each of 15 participants were compared" in text


def test_a_cohort_without_motion_and_repetitions_says_so(tmp_path: Path) -> None:
    """And nothing of an earlier call remains."""
    inputs = _inputs(tmp_path)
    _run(tmp_path, inputs)
    naming = inputs["naming"]
    assert naming.figure("audit", model=LABEL).is_file()
    inputs = {**_inputs(tmp_path, motion=False, sessions=False), "properties": []}
    _run(tmp_path, inputs)
    assert not naming.figure("audit", model=LABEL).is_file()
    assert files.read_rows(naming.path("group_confounding", model=LABEL)) == []
    audit = gather_audit(naming, LABEL)
    assert audit is not None
    assert (audit.lines, audit.reliability, audit.summary) == ([], [], "")
    assert audit.no_reliability.startswith("fewer than 5 subjects have two sessions")
    assert outputs.is_complete(tmp_path / "out", naming.stem, STAGE, CONFIGURATION)


def test_distances_are_in_the_order_of_the_connections() -> None:
    xyz = resources.parcels().xyz
    matrix = np.linalg.norm(xyz[:, None] - xyz[None], axis=2)
    # arctanh of a small multiple is that multiple, nearly
    np.testing.assert_allclose(fisher_z(matrix * 1e-6), parcel_distances() * 1e-6, rtol=1e-6)
