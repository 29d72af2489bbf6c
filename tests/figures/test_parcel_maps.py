"""Parcels on anatomy: left is left, zero is transparent, and the anatomy lies where it belongs."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from brainlm_bids.figures import experiments, model
from brainlm_bids.figures.cohort import plot_probabilities, share_colours
from brainlm_bids.figures.networks import network_rgba
from brainlm_bids.figures.palette import FAINT, NETWORKS
from brainlm_bids.figures.parcel_maps import PLAIN, parcel_slices

# Centres of four parcels, mm
CENTRES = np.array([(-30.0, 20, 10), (30, 20, 10), (-20, -40, 50), (20, -40, -20)])


def _grid(first: float, size: float = 3.0) -> tuple[tuple[int, ...], np.ndarray]:
    """A grid around the origin whose x axis leads to the right, or to the left."""
    shape = tuple(int(n / size) for n in (150, 180, 150))
    affine = np.diag([first * size, size, size, 1.0])
    affine[:3, 3] = -0.5 * np.diag(affine)[:3] * (np.array(shape) - 1)
    return shape, affine


def _places(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    voxels = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    return np.asarray(voxels @ affine[:3, :3].T + affine[:3, 3])


def _atlas(first: float) -> tuple[np.ndarray, np.ndarray]:
    """Four balls with a radius of 13 mm."""
    shape, affine = _grid(first)
    places, atlas = _places(shape, affine), np.zeros(shape, int)
    for number, centre in enumerate(CENTRES, start=1):
        atlas[np.linalg.norm(places - centre, axis=-1) < 13] = number
    return atlas, affine


@pytest.mark.parametrize("first", [1.0, -1.0])
def test_a_parcel_of_the_left_is_on_the_marked_side(first: float) -> None:
    slices = parcel_slices(*_atlas(first))
    only_left = np.zeros((4, 4))
    only_left[0] = (1, 0, 0, 1)
    red = np.argwhere((slices.picture(only_left) == (255, 0, 0)).all(axis=-1))
    assert len(red) > 20
    for row, column in red:
        tile = next(t for t in slices.cut.tiles if t.left <= column < t.left + t.width)
        # "L" is written at the lower left of the first slice, and all are cut alike
        assert column - tile.left < tile.width / 2
        assert row - tile.top < tile.height / 2  # anterior is up
        assert abs(tile.position - 10) <= 13 + 1.5  # of the ball, and of the atlas's voxels


@pytest.mark.parametrize("first", [1.0, -1.0])
def test_the_anatomy_of_another_grid_lies_beneath_its_parcel(first: float) -> None:
    atlas, affine = _atlas(1.0)
    shape, grid = _grid(first, 2.0)
    # tissue only where the second parcel is: at the right
    image = 100.0 * (np.linalg.norm(_places(shape, grid) - CENTRES[1], axis=-1) < 13)
    slices = parcel_slices(atlas, affine, (image, grid))
    bright = slices.grey > slices.grey.max() / 2
    inside = slices.parcels == 2
    assert (bright & inside).sum() > 0.85 * max(bright.sum(), inside.sum())


def test_zero_is_transparent_and_the_least_share_is_not() -> None:
    atlas, affine = _atlas(1.0)
    shape, grid = _grid(1.0)
    image = 50 + 50 * np.random.default_rng(0).random(shape)
    slices = parcel_slices(atlas, affine, (image, grid))
    picture = slices.picture(share_colours(np.array([0.0, np.nan, 0.01, 1.0])))
    anatomy = np.repeat(slices.grey[..., None], 3, axis=-1)
    shown = (picture != anatomy).any(axis=-1)
    assert not shown[np.isin(slices.parcels, (0, 1, 2))].any()
    assert shown[slices.parcels == 3].all() and shown[slices.parcels == 4].all()
    # and what is transparent is not black, with a template or without
    assert picture[slices.parcels == 1].min() > 40
    plain = parcel_slices(atlas, affine)
    assert (plain.picture(np.zeros((4, 4)))[plain.parcels > 0] == PLAIN).all()


def test_networks_have_the_colours_of_the_legend() -> None:
    slices = parcel_slices(*_atlas(1.0))
    picture = slices.picture(network_rgba(np.array([1, 5, 7, 0])))
    for parcel, colour in enumerate(
        (NETWORKS[0].colour, NETWORKS[4].colour, NETWORKS[6].colour, FAINT), start=1
    ):
        expected = np.rint(255 * np.array(to_rgb(colour)))
        assert (picture[slices.parcels == parcel] == expected).all()


def test_numbers_that_the_atlas_has_beyond_the_parcels_are_not_coloured() -> None:
    atlas, affine = _atlas(1.0)
    slices = parcel_slices(atlas, affine)
    picture = slices.picture(np.tile([1.0, 0, 0, 1], (3, 1)))
    assert (picture[slices.parcels == 3] == (255, 0, 0)).all()
    assert (picture[slices.parcels == 4] == PLAIN).all()


def test_figures_of_parcels_on_anatomy_keep_their_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    atlas, affine = _atlas(-1.0)
    image, grid = rng.random(_grid(1.0)[0]), _grid(1.0)[1]
    z = np.array([2.0, -1.0, np.nan, 0.5])
    parcels = SimpleNamespace(names=list("abcd"), network_index=np.array([1, 2, 3, 4]))
    moved = (0.5, rng.random(20))
    for name in ("a", "b"):
        model.plot_networks(
            tmp_path / f"{name}1.svg",
            np.array([1, 2, 3, 0]),
            atlas,
            affine,
            np.array([1, 2, 0, 4]),
            background=(image, grid),
        )
        plot_probabilities(
            tmp_path / f"{name}2.svg", rng.random((7, 4)) * 0, atlas, affine, background=None
        )
        experiments.plot_perturbation(
            tmp_path / f"{name}3.png",
            *(0.1 * z, z, np.abs(z), [3], (atlas, affine), parcels, moved, "title"),
            background=(image, grid),
        )
    for figure in ("1.svg", "2.svg", "3.png"):
        assert (tmp_path / f"a{figure}").read_bytes() == (tmp_path / f"b{figure}").read_bytes()
    text = (tmp_path / "a1.svg").read_text()
    assert "no network" in text and "50 %" not in text and "100 % of 2 parcels" in text
    assert "0 parcels, share up to 0.00" in (tmp_path / "a2.svg").read_text()
