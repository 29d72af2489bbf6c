"""The networks of a cohort: its table has recordings, consensus and the controls, once each."""

import nibabel as nb
import numpy as np
import pytest

from brainlm_bids import files, resources
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.files import read_rows
from brainlm_bids.interfaces.cohort.networks import GroupNetworks
from brainlm_bids.interfaces.images import load_image
from brainlm_bids.resources.packaged import embedded_template

LABEL = "m"
N = 9
TRUTH = resources.parcels().network_index
OWN = dict.fromkeys(("accuracy", "adjusted_rand", "knn_accuracy", "knn_accuracy_distant"), 0.5)


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Naming:
    """Nine subjects, each of whom has a fifth of the parcels in a random network."""
    folder = tmp_path_factory.mktemp("group")
    labels, affine = resources.approximate_atlas()
    atlas = folder / "atlas.nii.gz"
    nb.Nifti1Image(labels, affine).to_filename(atlas)
    naming = Naming(str(folder / "out"), "group_task-rest", "MNI152NLin6Asym", "A424", "cohort")
    recordings, rng = [], np.random.default_rng(0)
    for subject in range(N):
        stem = f"sub-{subject}_task-rest"
        own = Naming(naming.output_dir, stem, naming.space, naming.atlas, naming.scaling)
        networks = np.where(rng.random(424) < 0.2, rng.integers(1, 8, 424), TRUTH)
        path = own.path("networks", model=LABEL)
        path.parent.mkdir(parents=True)
        drawn = np.concatenate([[0], networks])[labels].astype(np.uint8)
        nb.Nifti1Image(drawn, affine).to_filename(path)
        scores = {"model": OWN, "series": OWN, "coordinates": OWN, **resources.spatial_null()}
        files.write_json(own.path("networks", model=LABEL, extension=".json"), {"Scores": scores})
        keys = {"session_id": None, "task": "rest", "run": None, "mean_fd": 0.1, "coverage": 1.0}
        recordings.append({"participant_id": f"sub-{subject}", "stem": stem, **keys})
    series = folder / "series.npy"
    np.save(series, np.tile(TRUTH, (N, 1)))
    t1w, _, grid = embedded_template()
    nb.Nifti1Image(t1w, grid).to_filename(folder / "t1w.nii.gz")
    GroupNetworks(
        naming=naming,
        recordings=recordings,
        sidecar={},
        label=LABEL,
        atlas=str(atlas),
        template=str(folder / "t1w.nii.gz"),
        series_networks=str(series),
        rows=list(range(N)),
    ).run(cwd=str(folder))
    return naming


def test_the_table_has_every_control_once(group: Naming) -> None:
    rows = read_rows(group.path("group_networks", model=LABEL))
    assert [(row["participant_id"], row["features"]) for row in rows] == [
        *[(f"sub-{k}", features) for k in range(N) for features in ("model", "series")],
        ("consensus", "model"),
        ("consensus", "series"),
        ("control", "coordinates"),
        ("control", "spatial_null_mean"),
        ("control", "spatial_null_95"),
    ]
    limit = resources.spatial_null()["spatial_null_95"]
    assert float(rows[-1]["knn_accuracy_distant"]) == limit["knn_accuracy_distant"]
    assert rows[-5]["knn_accuracy"] == "n/a"
    assert "majority" not in rows[0]


def test_the_probabilities_are_drawn_on_the_template(group: Naming) -> None:
    drawn = group.figure("network_probability", model=LABEL).read_text()
    assert drawn.count("<!-- L -->") == drawn.count("<!-- R -->") == 7
    assert "share of participants (parcels with 0 are not coloured)" in drawn
    assert "<!-- L -->" in group.figure("consensus", model=LABEL).read_text()


def test_the_consensus_is_what_the_subjects_share(group: Naming) -> None:
    rows = read_rows(group.path("group_networks", model=LABEL))
    assert float(rows[-5]["accuracy"]) == float(rows[-4]["accuracy"]) == 1
    image, _ = load_image(group.path("consensus", model=LABEL))
    shares = np.asarray(nb.load(group.path("network_probability", model=LABEL)).dataobj)
    inside = resources.approximate_atlas()[0] > 0
    assert np.array_equal(image[inside], shares[inside].argmax(axis=1) + 1)
    # 0.8 are in the true network, and a seventh of the others by chance
    assert shares[inside].max(axis=1).mean() == pytest.approx(0.8 + 0.2 / 7, abs=0.03)
    sidecar = files.read_json(group.path("consensus", model=LABEL, extension=".json"))
    assert sidecar["Scores"]["spatial_null_95"] == resources.spatial_null()["spatial_null_95"]
