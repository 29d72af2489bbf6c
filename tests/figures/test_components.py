"""The plate of the components: left is left, nothing is hidden, and it gives the true reasons."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from brainlm_bids.figures import components
from brainlm_bids.figures.components import TimeAxis, plot_component_maps
from brainlm_bids.figures.denoising import LOWEST_HZ, Limits
from brainlm_bids.figures.slabs import slabs
from brainlm_bids.figures.vector import line, text
from brainlm_bids.preproc.denoising import aroma

LIMITS = Limits(aroma.CSF_THRESHOLD, aroma.HFC_THRESHOLD, aroma.HYPERPLANE)
SHAPE = (60, 72, 30)


def _ball(first: float, shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """An ellipsoid of a brain's size in voxels of 3 × 3 × 5 mm, whose x axis leads either way."""
    affine = np.diag([first, 3.0, 5.0, 1.0])
    affine[:3, 3] = -0.5 * np.diag(affine)[:3] * (np.array(shape) - 1)
    place = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    return (place**2).sum(axis=0) < 0.85, affine


def _features(n: int, rng: np.random.Generator) -> dict[str, Any]:
    names = ("max_rp_corr", "edge_fract", "csf_fract", "hfc")
    values: dict[str, Any] = {name: rng.random(n) * 0.9 for name in names}
    values["csf_fract"] *= 0.15
    values["variance"] = rng.random(n) / n
    noise, _ = aroma.classify(*(values[name] for name in names))
    values["classification"] = np.where(noise, "noise", "signal")
    return values


def _draw(path: Path, n: int, n_volumes: int, bad: tuple[int, ...] = (), n_dummy: int = 0) -> str:
    rng = np.random.default_rng(n)
    mask, affine = _ball(3.0)
    maps = np.stack([gaussian_filter(rng.normal(size=SHAPE), 1.2)[mask] for _ in range(n)])
    maps /= maps.std(axis=1, keepdims=True)
    maps[np.abs(maps) < 1.8] = 0
    time = TimeAxis(0.8, n_dummy, np.isin(np.arange(n_volumes + n_dummy), bad))
    reference = mask * (500 + rng.normal(size=SHAPE))
    mixing = rng.normal(size=(n_volumes, n))
    plot_component_maps(
        path, maps, reference, mask, affine, _features(n, rng), mixing, time, LIMITS
    )
    return path.read_text()


@pytest.mark.parametrize("first", [3.0, -3.0])
def test_left_is_left_and_each_slice_is_at_its_millimetres(first: float) -> None:
    mask, affine = _ball(first)
    shown = slabs(mask, affine)
    centres = np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]
    middles = np.array([tile.position for tile in shown.cut.tiles])
    for x, y, z in ((-40, 30, 20), (40, -30, -25), (-10, 0, 55)):
        values = np.zeros(len(centres), np.float32)
        at = np.linalg.norm(centres - (x, y, z), axis=1).argmin()
        values[at] = 4.0
        picture = shown.picture(values)
        ((row, column),) = np.argwhere(picture)
        tile = next(t for t in shown.cut.tiles if t.left <= column < t.left + t.width)
        assert (column - tile.left < tile.width / 2) == (x < 0)
        if y:
            assert (row - tile.top < tile.height / 2) == (y > 0)
        assert abs(tile.position - centres[at, 2]) == np.abs(middles - centres[at, 2]).min()


def test_no_voxel_is_hidden_and_the_strongest_of_a_slab_is_shown() -> None:
    mask, affine = _ball(3.0)
    shown = slabs(mask, affine)
    rng = np.random.default_rng(0)
    for voxel in rng.integers(0, np.count_nonzero(mask), 50):
        alone = np.zeros(np.count_nonzero(mask), np.float32)
        alone[voxel] = -2.5
        assert np.count_nonzero(shown.picture(alone)) == 1
    values = rng.normal(size=np.count_nonzero(mask)).astype(np.float32)
    flat = shown.picture(values).ravel()
    for pixel in rng.choice(shown.pixel, 50):
        behind = values[shown.pixel == pixel]
        assert flat[pixel] == behind[np.abs(behind).argmax()]


def test_only_zero_is_transparent_and_signs_have_their_own_colours() -> None:
    index = components._shades(np.array([0.0, 1e-6, -1e-6, 5.0, -5.0, 99.0]), 5.0).astype(int)
    colours = components._colours()
    assert index[0] == 0 and colours[0, 3] == 0
    assert len(set(index[1:5])) == 4 and index[5] == index[3]
    assert (colours[index[1:], 3] == 255).all()
    red, blue = colours[index[[1, 3]]], colours[index[[2, 4]]]
    assert (red[:, 0] > red[:, 2]).all() and (blue[:, 2] > blue[:, 0]).all()


def test_the_reasons_are_those_of_the_decision() -> None:
    rng = np.random.default_rng(3)
    features = _features(400, rng)
    noise = features["classification"] == "noise"
    for k in range(400):
        decided = LIMITS.exceeded({name: features[name][k] for name in components.WORDS_OF})
        assert bool(decided) == noise[k]
        assert ("csf_fract" in decided) == (features["csf_fract"][k] > aroma.CSF_THRESHOLD)
        assert ("edge_fract" in decided) == ("max_rp_corr" in decided)


def test_the_spectrum_is_split_where_the_high_frequency_content_is() -> None:
    assert LOWEST_HZ == aroma.HFC_LOWEST_HZ
    tr, n = 0.8, 500
    frequency = np.fft.rfftfreq(n, tr)
    # equal power from 0.2 to 0.4 Hz: half of it is below 0.3 Hz
    course = np.fft.irfft(np.abs(frequency - 0.3) <= 0.1, n)
    hfc = float(aroma.high_frequency_content(course[:, None], tr)[0])
    assert Limits.frequency(hfc, 0.5 / tr) == pytest.approx(0.3, abs=0.004)


def test_bad_volumes_are_marked_and_interrupt_the_course(tmp_path: Path) -> None:
    plain = _draw(tmp_path / "a.svg", 2, 100)
    marked = _draw(tmp_path / "b.svg", 2, 100, bad=(50, 51, 70), n_dummy=4)
    assert components.BAD not in plain
    assert marked.count(components.BAD) == 2  # two stretches, defined once for all rows
    courses = re.findall(r'class="c [ng]".*? d="(.*?)"', marked)
    assert [course.count("M") for course in courses] == [3, 3]
    assert "0 to 83 s" in marked  # 104 volumes of 0.8 s


@pytest.mark.parametrize(("n", "n_volumes"), [(1, 40), (150, 1200)])
def test_one_and_many_components_are_all_shown_in_a_small_file(
    tmp_path: Path, n: int, n_volumes: int
) -> None:
    drawn = _draw(tmp_path / "a.svg", n, n_volumes)
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert set(re.findall(r">IC (\d+)<", drawn)) == {str(k + 1) for k in range(n)}
    # the plate is the largest new figure of a run
    assert len(drawn) < 680_000
    assert drawn == _draw(tmp_path / "b.svg", n, n_volumes)


def test_thin_and_empty_brains_can_be_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for depth in (1, 3):
        mask, affine = _ball(3.0, (20, 24, depth))
        mask[8:12, 8:12] = True
        maps = np.zeros((2, np.count_nonzero(mask)))
        time = TimeAxis(2.0, 0, np.ones(30, bool))
        path = tmp_path / f"{depth}.svg"
        features = _features(2, rng) | {"variance": np.array([np.nan, 0.0])}
        plot_component_maps(
            path, maps, 1.0 * mask, mask, affine, features, np.zeros((30, 2)), time, LIMITS
        )
        assert len(re.findall(r">IC \d", path.read_text())) == 2


def test_lines_are_interrupted_and_words_are_escaped() -> None:
    assert line(np.arange(3.0), np.array([np.nan] * 3)) == ""
    assert line(np.array([0.0, 2, 4]), np.array([5.0, 3, 4])) == "M0 5l2-2 2 1"
    assert "&lt;b&gt;" in text(0, 0, "<b> & **x**")
