"""Figures: equal input gives equal bytes, and they state the numbers that they were given."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image

from brainlm_bids.bids.outputs import figure_table
from brainlm_bids.figures import (
    audit,
    canvas,
    cohort,
    components,
    denoising,
    distortion,
    embeddings,
    experiments,
    model,
    motion,
    parcels,
    registration,
    states,
    thumbnail,
    voxels,
)
from brainlm_bids.figures.mosaic import layout
from brainlm_bids.figures.networks import group_edges, network_order
from brainlm_bids.parcels import N_PARCELS
from brainlm_bids.report.tools.records import TOOLS

TR = 2.0
T = 60
LIMITS = denoising.Limits(csf_fract=0.1, hfc=0.35, hyperplane=(-20.0, 10.0, 25.0))


def _draw_all(folder: Path) -> dict[str, Path]:
    """Every figure once, from seeded noise."""
    rng = np.random.default_rng(0)
    networks = np.arange(N_PARCELS) % 8
    series = rng.normal(size=(T, N_PARCELS))
    series[:, 7] = np.nan
    affine = np.array([[-4.0, 0, 0, 60], [0, 4, 0, -70], [0, 0, 4, -50], [0, 0, 0, 1]])
    grid = np.stack(np.meshgrid(*[np.arange(30)] * 3, indexing="ij")) - 15
    mask = (grid**2).sum(axis=0) < 140
    image = 100.0 * mask + rng.normal(size=mask.shape)
    atlas = mask * (1 + np.arange(mask.size).reshape(mask.shape) % N_PARCELS)
    fd = np.abs(rng.normal(0.1, 0.05, T))
    fd[[0, 20, 30]] = np.nan, 0.9, 0.8
    names = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]
    confounds = {name: rng.normal(size=T) for name in names}
    confounds |= {"framewise_displacement": fd, "std_dvars": np.ones(T)}
    features = {key: rng.random(9) for key in ("max_rp_corr", "edge_fract", "csf_fract", "hfc")}
    features["classification"] = np.array(["noise"] * 4 + ["signal"] * 5)
    rows = [{"mask_ratio": "0.2", "predictor": p, "r2": "0.1"} for p in ("model", "ridge")]
    confounds["global_signal"] = 1e4 + rng.normal(size=T)
    bad = np.arange(T) % 25 == 7
    tissue = np.repeat([1, 2, 4, 5], [40, 10, 20, 5])
    calls: dict[str, tuple[Callable[..., None], tuple]] = {
        "motion": (motion.plot_motion, (confounds, TR, 2, 0.5)),
        "motion_with_bad_volumes": (motion.plot_motion, (confounds, TR, 2, 0.5, 1.5, bad)),
        "bold_maps": (voxels.plot_maps, (image, image / 20, 20.0 * mask, affine, mask)),
        "tissue_carpet": (
            partial(voxels.plot_tissue_carpet, n_dummy=2, bad=bad),
            (1000 + rng.normal(size=(T, 75)), tissue, confounds, TR),
        ),
        "correlations": (
            voxels.plot_confound_correlations,
            (confounds, ~bad, ["global_signal", *names]),
        ),
        "carpet": (motion.plot_carpet, (series, 0.5 * series, networks, TR, fd)),
        "coreg": (registration.plot_registration, (image, affine, image, {"brain <b> $x": mask})),
        "distortion": (
            distortion.plot_distortion,
            (image, 1.1 * image, affine, 0.1 * image, mask),
        ),
        "mask": (registration.plot_brain_mask, (image, affine, mask)),
        "aroma": (denoising.plot_aroma, (features, LIMITS)),
        "components": (
            components.plot_component_maps,
            (
                rng.normal(size=(9, np.count_nonzero(mask))),
                *(image, mask, affine, {**features, "variance": np.full(9, 0.1)}),
                *(rng.normal(size=(T, 9)), components.TimeAxis(TR, 2, np.arange(T + 2) == 30)),
                LIMITS,
            ),
        ),
        "coverage": (
            parcels.plot_coverage,
            (rng.random(N_PARCELS), 40 * rng.normal(size=(N_PARCELS, 3)), networks),
        ),
        "series": (parcels.plot_series, (series, TR, networks)),
        "connectivity": (parcels.plot_connectivity, (np.corrcoef(series.T), networks)),
        "reconstruction": (model.plot_reconstruction, (series, 0.5 * series, TR, None, rows)),
        "embeddings": (embeddings.plot_embeddings, (rng.normal(size=(3, 16)), [0.0, 147.0, 160.0])),
        "networks": (
            model.plot_networks,
            (networks, atlas, affine, np.roll(networks, 1), {"accuracy": 0.5}),
        ),
        **_of_a_cohort(rng, networks, atlas, affine),
    }
    drawn = {}
    for key, (function, arguments) in calls.items():
        drawn[key] = folder / f"{key}.svg"
        function(drawn[key], *arguments)
    return drawn


def _of_a_cohort(
    rng: np.random.Generator, networks: np.ndarray, atlas: np.ndarray, affine: np.ndarray
) -> dict[str, tuple[Callable[..., None], tuple]]:
    recordings = [
        {"mean_fd": 0.1 * k, "coverage": None, "n_volumes": 100 + k, "included": k > 1}
        for k in range(5)
    ]
    points = rng.normal(size=(5, 2))
    shared = {"target": "age", "metric": "r2", "n_subjects": 5, "low": 0.1, "high": 0.4}
    scores = [
        {**shared, "features": kind, "scaling": "recording", "label": kind, "value": 0.25 + k}
        | {"permutation_p": [0.031, None][k], "default": k == 0}
        for k, kind in enumerate(("embedding", "connectivity"))
    ]
    spread = [40.0, None, 38.0]
    return {
        "quality": (cohort.plot_quality, (recordings,)),
        "statistics": (
            cohort.plot_statistics,
            (rng.random(N_PARCELS), networks, spread, [0.8, 0.9, None]),
        ),
        "maps": (
            cohort.plot_maps,
            ([("PCA", points, ("first", "second"))], "site", ["a", "b", None, "a", "<b> $x"]),
        ),
        "probabilities": (
            cohort.plot_probabilities,
            (rng.random((7, N_PARCELS)), atlas, affine),
        ),
        "decoding": (cohort.plot_decoding, (scores,)),
        "audit": (audit.plot_audit, _audited(rng)),
        "states": (states.plot_states, _decoded_states(rng)),
        "audit_of_nothing": (audit.plot_audit, ([], np.ones(3), None, {}, [])),
    }


def _decoded_states(rng: np.random.Generator) -> tuple:
    names = ["face", "house", "a long name of a state"]
    rows = [
        {"label": f"source {k}", "role": role, "value": 0.5, "low": 0.4, "high": 0.7, "p": 0.1}
        for k, role in enumerate(("embedding", "baseline", "control"))
    ]
    return rows, rng.dirichlet([5, 1, 1], size=3), names, "default readout"


def _audited(rng: np.random.Generator) -> tuple:
    shares = [
        {"variable": name, "features": features, "measure": "variance_share_adjusted"}
        | {"value": value, "p": p}
        for name, value, p in (("site <b> $x", 0.2, 0.001), ("coverage", -0.01, float("nan")))
        for features in ("embedding", "connectivity", "untrained")
    ]
    slope = {"variable": "mean_fd", "features": "connectivity", "measure": "distance_rho"}
    correlations = rng.uniform(-0.4, 0.4, 3000)
    correlations[:9] = np.nan
    iccs = {"embedding": rng.random(16), "connectivity": rng.random(3000), "mean_fd": np.ones(1)}
    rate = {"features": "embedding", "measure": "identification_rate", "value": 0.9}
    rows = [*shares, {**slope, "value": -0.3, "p": 0.01}]
    return rows, rng.uniform(5, 150, 3000), correlations, iccs, [rate]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The figures, drawn under a user's own matplotlib settings."""
    before: dict[Any, Any] = {"font.size": 20.0, "svg.hashsalt": "mine", "axes.facecolor": "red"}
    with matplotlib.rc_context(before):
        paths = _draw_all(tmp_path_factory.mktemp("figures"))
        assert {key: matplotlib.rcParams[key] for key in before} == before
    return paths


def test_figures_are_small_valid_svg_without_a_date(drawn: dict[str, Path]) -> None:
    for path in drawn.values():
        text = path.read_text()
        assert ElementTree.fromstring(text).tag.endswith("svg")
        assert len(text) < 500_000, path.name
        assert "dc:date" not in text and "<script" not in text
    folder = next(iter(drawn.values())).parent
    assert {path.suffix for path in folder.iterdir()} == {".svg"}, "a part file was left behind"


def test_figures_have_the_same_bytes_in_another_process(
    drawn: dict[str, Path], tmp_path: Path
) -> None:
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "import test_figures; test_figures._draw_all(Path(sys.argv[2]))\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7", "MPLBACKEND": "svg"},
    )
    for path in drawn.values():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_figures_state_the_numbers_that_they_were_given(drawn: dict[str, Path]) -> None:
    # matplotlib keeps each text as a comment beside its outlines
    assert "2 above 0.5 mm" in drawn["motion"].read_text()
    assert "2 dummy volumes shaded" in drawn["motion"].read_text()
    marked = drawn["motion_with_bad_volumes"].read_text()
    assert "2 dummy volumes shaded   ·   3 bad volumes marked with a triangle" in marked
    assert "3 bad volumes" in drawn["tissue_carpet"].read_text()
    assert "median in the brain: 20" in drawn["bold_maps"].read_text()
    assert "r² = 0.75" in drawn["reconstruction"].read_text()  # 1 - (1 - 0.5)²
    # 4 mm voxels, ball of radius sqrt(140) voxels
    grid = np.arange(30) - 15
    radius = grid[:, None, None] ** 2 + grid[:, None] ** 2 + grid**2
    volume = np.count_nonzero(radius < 140) * 4**3 / 1000
    assert f"{volume:.0f} cm³" in drawn["mask"].read_text()
    assert "4 IC" in drawn["aroma"].read_text() and "5 IC" in drawn["aroma"].read_text()
    assert "median 0.2" in drawn["quality"].read_text()
    # the coronal and the axial view
    assert drawn["coverage"].read_text().count("<!-- L -->") == 2
    assert "0.25  p = 0.031" in drawn["decoding"].read_text()


def test_motion_is_that_of_the_steady_state(tmp_path: Path) -> None:
    fd = np.r_[np.nan, 9.0, 9.0, np.full(20, 0.1)]
    motion.plot_motion(tmp_path / "x.svg", {"framewise_displacement": fd}, TR, n_dummy=2)
    # the change to the first volume of the steady state is marked, and not in the mean
    assert "mean 0.100 mm   ·   1 above 0.5 mm" in (tmp_path / "x.svg").read_text()


def test_a_figure_that_fails_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), canvas.canvas(tmp_path / "x.svg", 2.0):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("first", [2.0, -2.0])
def test_slices_keep_left_on_the_left_and_name_their_millimetres(first: float) -> None:
    # x runs to the right or to the left in the file; world coordinates are the same
    affine = np.diag([first, 2.0, 2.0, 1.0])
    affine[:3, 3] = [-39.0 if first > 0 else 39.0, -39.0, -39.0]
    volume = np.zeros((40, 40, 40), np.float32)
    inverse = np.linalg.inv(affine)
    for x, y, z, value in ((-21.0, 15.0, 9.0, 1.0), (21.0, -15.0, 9.0, 2.0)):
        i, j, k = np.round(inverse @ [x, y, z, 1.0]).astype(int)[:3]
        volume[i, j, k] = value
    cut = layout(volume.shape, affine, planes="z", n_columns=40)
    picture = np.nan_to_num(cut.cut(volume, order=0))
    for value, is_left, is_front in ((1.0, True, True), (2.0, False, False)):
        row, column = np.argwhere(picture == value)[0]
        tile = next(t for t in cut.tiles if t.left <= column < t.left + t.width)
        # slices are chosen on whole voxels
        assert abs(tile.position - 9.0) <= 1.0
        assert bool(column - tile.left < tile.width / 2) is is_left
        assert bool(row - tile.top < tile.height / 2) is is_front


def test_parcels_are_sorted_by_network_and_keep_their_order() -> None:
    order = network_order(np.array([3, 0, 1, 3, 1]))
    assert order.tolist() == [2, 4, 0, 3, 1]
    assert group_edges(np.array([1, 1, 3, 3, 0])) == {1: (0, 2), 3: (2, 4), 0: (4, 5)}


def test_correlation_and_r2_agree_with_other_libraries_and_skip_gaps() -> None:
    from sklearn.metrics import r2_score

    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 3))
    y = x + rng.normal(size=x.shape)
    y[40:, 0] = np.nan
    x[:, 2] = 0.0
    r = model._columnwise_correlation(x, y)
    assert r[0] == pytest.approx(np.corrcoef(x[:40, 0], y[:40, 0])[0, 1])
    assert np.isnan(r[2])
    r2 = model._columnwise_r2(x, y)
    assert r2[0] == pytest.approx(r2_score(x[:40, 0], y[:40, 0]))
    assert r2[1] == pytest.approx(r2_score(x[:, 1], y[:, 1]))


def test_degenerate_runs_can_be_drawn(tmp_path: Path) -> None:
    networks = np.zeros(N_PARCELS, int)
    nothing = np.full((T, N_PARCELS), np.nan)
    path = tmp_path / "x.svg"
    none = {key: np.zeros(0) for key in ("max_rp_corr", "edge_fract", "csf_fract", "hfc")}
    denoising.plot_aroma(path, none | {"classification": np.zeros(0, str)}, LIMITS)
    motion.plot_carpet(path, nothing, None, networks, TR)
    parcels.plot_series(path, nothing, TR, networks)
    parcels.plot_connectivity(path, nothing[:1].T * nothing[:1], networks)
    parcels.plot_coverage(path, nothing[0], np.zeros((N_PARCELS, 3)), networks)
    motion.plot_motion(path, {}, TR)
    bad = np.ones(T, bool)
    no_tissue = np.zeros(0, int)
    voxels.plot_tissue_carpet(path, np.zeros((T, 0)), no_tissue, {}, TR, bad=bad)
    voxels.plot_tissue_carpet(path, np.ones((T, 3)), np.array([1, 1, 5]), {"csf": bad * 0.0}, TR)
    voxels.plot_confound_correlations(path, {"csf": np.ones(T)}, bad, ["csf"])
    grid = np.zeros((8, 8, 8))
    registration.plot_brain_mask(path, grid, np.eye(4), grid)
    registration.plot_registration(path, grid, np.eye(4), grid, {"brain": grid})
    distortion.plot_distortion(path, grid, grid, np.eye(4), grid, grid)
    voxels.plot_maps(path, grid, grid, grid, np.eye(4), grid)
    model.plot_networks(path, networks, grid, np.eye(4), networks)
    with pytest.raises(ValueError, match="no parcel"):
        model.plot_reconstruction(path, nothing, nothing, TR)


def test_a_thumbnail_is_small_and_outlines_the_brain_of_the_target(tmp_path: Path) -> None:
    """A ball of brain, off centre: the outline lies on its surface, in red and nowhere else."""
    grid = np.stack(np.meshgrid(*[np.arange(60)] * 3, indexing="ij"))
    brain = ((grid - np.array([30, 28, 33])[:, None, None, None]) ** 2).sum(axis=0) < 22**2
    affine = np.diag([-3.0, 3.0, 3.0, 1.0])  # stored from right to left
    noise = np.random.default_rng(0).normal(1, 0.3, brain.shape)
    left = np.where(grid[0] > 30, 500.0, 1500.0)  # the left of the head is darker
    path = tmp_path / "thumbnail.png"
    thumbnail.plot_thumbnail(path, brain * noise * left, affine, brain)
    assert path.stat().st_size <= 12_000
    picture = np.asarray(Image.open(path).convert("RGB"), float)
    assert picture.shape[0] == thumbnail.HEIGHT
    red = (picture[..., 0] > 200) & (picture[..., 1] < 150)
    grey = ~red & (picture.max(axis=2) > 0)
    assert (picture[grey].std(axis=1) == 0).all(), "the rest is grey"
    slices = np.array_split(np.arange(picture.shape[1]), 3)
    for columns in slices:
        outline = np.argwhere(red[:, columns])
        radius = np.hypot(*(outline - outline.mean(axis=0)).T)
        assert radius.std() < 0.06 * radius.mean(), "a circle"
    axial = picture[:, slices[0], 1]
    assert axial[:, : len(slices[0]) // 2].mean() < axial[:, len(slices[0]) // 2 :].mean()
    again = tmp_path / "again.png"
    thumbnail.plot_thumbnail(again, brain * noise * left, affine, brain)
    assert again.read_bytes() == path.read_bytes()
    thumbnail.plot_thumbnail(path, np.zeros(brain.shape), affine)


KINDS = {"subject", "run", "model", "cohort", "cohort_model", "index", *TOOLS}


def test_every_figure_is_one_row_and_one_function() -> None:
    table = figure_table()
    modules = (
        *(audit, cohort, components, denoising, distortion, embeddings),
        *(experiments, model, motion, parcels, registration, states, thumbnail, voxels),
    )
    functions = {
        f"{module.__name__.rpartition('.')[2]}.{name}"
        for module in modules
        for name in vars(module)
        if name.startswith("plot_") and vars(module)[name].__module__ == module.__name__
    }
    assert {row["function"] for row in table.values()} == functions
    files = [(row["desc"], row["suffix"]) for row in table.values()]
    assert len(set(files)) == len(files)
    for key, row in table.items():
        assert row["of"] in KINDS, key
        assert all(row[text].strip() for text in ("section", "title")), key
        assert all(row[text].endswith(".") for text in ("caption", "alt")), key
