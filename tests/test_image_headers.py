"""Grids of images: every way in which a header records them, and what is refused in one line."""

import itertools
from collections.abc import Callable
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from nibabel.orientations import aff2axcodes, axcodes2ornt, io_orientation, ornt_transform

from brainlm_bids.errors import UserError
from brainlm_bids.image_headers import (
    OrientationMissingError,
    check_head,
    check_stored,
    disagreement,
    has_orientation,
    read_grid,
    repetition_time,
)

SHAPE = (64, 60, 33)
ALL_CODES = [
    "".join(letters[k] for k in order)
    for order in itertools.permutations(range(3))
    for letters in itertools.product("LR", "AP", "SI")
]


def _image(
    affine: np.ndarray | None = None, shape: tuple[int, ...] = (*SHAPE, 20), dtype: type = np.uint8
) -> nb.Nifti1Image:
    affine = np.diag([3.0, 3.2, 4.0, 1.0]) if affine is None else affine
    image = nb.Nifti1Image(np.zeros(shape, dtype), affine)
    image.header.set_xyzt_units("mm", "sec")
    return image


def _stored(image: nb.Nifti1Image, path: Path) -> nb.Nifti1Image:
    image.to_filename(path)
    return nb.Nifti1Image.from_filename(path)


def _without_codes(image: nb.Nifti1Image) -> nb.Nifti1Image:
    image.header["sform_code"] = image.header["qform_code"] = 0
    return _by_header(image)


def _by_header(image: nb.Nifti1Image) -> nb.Nifti1Image:
    """As a file with this header is read: nothing but the header tells the affine."""
    as_is = nb.Nifti1Image(image.dataobj, None, image.header)
    return nb.Nifti1Image.from_bytes(as_is.to_bytes())


@pytest.mark.parametrize("code", ALL_CODES)
def test_an_orientation_that_is_given_is_that_of_the_axes(code: str) -> None:
    image = _without_codes(_image())
    assert not has_orientation(image)
    grid = read_grid(image, code)
    assert "".join(aff2axcodes(grid.affine)) == code
    assert np.linalg.norm(grid.affine[:3, :3], axis=0) == pytest.approx([3.0, 3.2, 4.0])
    middle = grid.affine @ [*(np.array(SHAPE) - 1) / 2, 1]
    assert middle[:3] == pytest.approx([0, 0, 0])


def test_without_orientation_an_image_is_refused_and_a_recorded_one_is_kept() -> None:
    assert len(set(ALL_CODES)) == 48
    with pytest.raises(OrientationMissingError, match="left and right"):
        read_grid(_without_codes(_image()))
    recorded = read_grid(_image(), "LAS")
    assert np.array_equal(recorded.affine, np.diag([3.0, 3.2, 4.0, 1.0]))


@pytest.mark.parametrize(
    ("shape", "squeezed"),
    [
        ((*SHAPE, 1, 20), (*SHAPE, 20)),
        ((*SHAPE, 20, 1), (*SHAPE, 20)),
        ((*SHAPE, 1), SHAPE),
        ((*SHAPE, 1, 1, 20), (*SHAPE, 20)),
        ((64, 60, 1, 20), (64, 60, 1, 20)),
        ((*SHAPE, 2, 20), (*SHAPE, 2, 20)),
    ],
)
def test_axes_without_extent_are_left_out(shape: tuple[int, ...], squeezed: tuple) -> None:
    assert read_grid(_image(shape=shape)).shape == squeezed


def test_the_unit_of_length_counts_where_it_makes_sense() -> None:
    millimetres = np.diag([3.0, 3.2, 4.0, 1.0])
    for unit, factor in (("mm", 1.0), ("meter", 1e-3), ("micron", 1e3), ("unknown", 1.0)):
        image = _image(np.diag([*millimetres.diagonal()[:3] * factor, 1.0]))
        image.header.set_xyzt_units(unit, "sec")
        assert read_grid(image).affine == pytest.approx(millimetres)
    wrong = _image(millimetres)
    wrong.header.set_xyzt_units("meter", "sec")
    assert read_grid(wrong).affine == pytest.approx(millimetres)
    wrong.header["xyzt_units"] = 255
    assert read_grid(wrong).affine == pytest.approx(millimetres)


def _singular(image: nb.Nifti1Image) -> None:
    image.header["srow_y"] = image.header["srow_x"]


def _not_finite(image: nb.Nifti1Image) -> None:
    image.header["srow_z"][3] = np.nan


def _flat(image: nb.Nifti1Image) -> None:
    for row in "xyz":
        image.header[f"srow_{row}"] = 0


@pytest.mark.parametrize(
    ("spoil", "why"),
    [(_singular, "singular"), (_not_finite, "not finite"), (_flat, "singular")],
)
def test_affines_that_are_no_map_are_refused(
    spoil: Callable[[nb.Nifti1Image], None], why: str
) -> None:
    image = _image()
    spoil(image)
    spoilt = _by_header(image)
    with pytest.raises(UserError, match=why):
        read_grid(spoilt)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_complex_values_are_refused(dtype: type) -> None:
    with pytest.raises(UserError, match="complex; give their magnitude"):
        check_stored(_image(dtype=dtype))


def test_colours_are_refused() -> None:
    for channels in ("RGB", "RGBA"):
        image = _image(shape=(4, 4, 4), dtype=np.dtype([(name, "u1") for name in channels]))  # type: ignore[arg-type]
        with pytest.raises(UserError, match="colours"):
            check_stored(image)


@pytest.mark.parametrize(
    ("shape", "sizes", "why"),
    [
        (SHAPE, (3.0, 3.0, 0.2), "0.2 mm are not those of an MRI scan"),
        (SHAPE, (3.0, 3.0, 30.0), "voxels of 3 × 3 × 30 mm"),
        (SHAPE, (3000.0, 3000.0, 4000.0), "correct the voxel sizes"),
        (SHAPE, (1.0, 1.0, 1.0), "too small for a brain"),
        ((64, 64, 1), (3.0, 3.0, 3.0), "too small for a brain"),
        ((64, 64, 3), (3.0, 3.0, 5.0), "too small for a brain"),
        ((64, 64, 200), (3.0, 3.0, 3.0), "x, y, slices, time"),
        ((240, 64, 64), (3.0, 3.0, 3.0), "larger than any head"),
    ],
)
def test_what_is_no_head_is_refused(
    shape: tuple[int, ...], sizes: tuple[float, ...], why: str
) -> None:
    with pytest.raises(UserError, match=why):
        check_head(read_grid(_image(np.diag([*sizes, 1.0]), (*shape, 2))))


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((64, 64, 10), (3.0, 3.0, 3.0)),
        ((110, 110, 12), (1.5, 1.5, 1.5)),
        ((104, 104, 72), (2.0, 2.0, 2.0)),
        ((36, 64, 64), (4.0, 3.0, 3.0)),
        ((150, 150, 100), (0.8, 0.8, 0.8)),
        ((40, 50, 40), (2.0, 2.0, 2.0)),
    ],
)
def test_real_fields_of_view_pass(shape: tuple[int, ...], sizes: tuple[float, ...]) -> None:
    check_head(read_grid(_image(np.diag([*sizes, 1.0]), (*shape, 2))))


def test_a_t1w_image_holds_the_whole_brain() -> None:
    for shape, sizes in (((256, 256, 176), (1.0, 1, 1)), ((24, 256, 256), (5.0, 0.9, 0.9))):
        check_head(read_grid(_image(np.diag([*sizes, 1.0]), shape)), whole=True)
    with pytest.raises(UserError, match="whole brain"):
        check_head(read_grid(_image(np.diag([1.0, 1, 5, 1]), (256, 256, 9))), whole=True)


def test_shears_are_refused_and_rounding_is_not() -> None:
    sheared = np.diag([3.0, 3.0, 3.0, 1.0])
    sheared[0, 1] = 3 * np.tan(np.radians(5))
    with pytest.raises(UserError, match="right angles"):
        check_head(read_grid(_image(sheared)))
    sheared[0, 1] = 3 * np.tan(np.radians(0.3))
    check_head(read_grid(_image(sheared)))


def _turned(degrees: float) -> np.ndarray:
    turn, angle = np.eye(4), np.radians(degrees)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ np.diag([3.0, 3.2, 4.0, 1.0])


@pytest.mark.parametrize(
    ("qform", "flipped"),
    [
        (np.diag([-3.0, 3.2, 4.0, 1.0]), True),
        (_turned(90), True),
        (_turned(180), True),
        (_turned(10), False),
    ],
)
def test_sform_against_qform(tmp_path: Path, qform: np.ndarray, flipped: bool) -> None:
    image = _image()
    image.set_sform(image.affine, 1)
    image.set_qform(qform, 1)
    found = disagreement(_stored(image, tmp_path / "image.nii"))
    assert found is not None
    assert found.flipped is flipped
    corners = np.array(list(itertools.product((0, 63), (0, 59), (0, 32), (1,))))
    truth = np.linalg.norm((corners @ (qform - np.diag([3.0, 3.2, 4.0, 1.0])).T)[:, :3], axis=1)
    assert found.millimetres == pytest.approx(truth.max(), rel=1e-3)


def test_affines_that_agree_or_stand_alone() -> None:
    image = _image()
    image.set_qform(image.affine, 1)
    assert disagreement(image) is None
    nudged = image.affine.copy()
    nudged[:3, 3] += 0.2
    image.set_qform(nudged, 1)
    assert disagreement(image) is None
    image.set_sform(None, 0)
    assert disagreement(image) is None


def test_voxel_sizes_against_the_sform() -> None:
    image = _image()
    image.set_sform(np.diag([1.0, 1.0, 1.0, 1.0]), 1)
    image.header["qform_code"] = 0
    image.header["pixdim"][1:4] = 3.0
    found = disagreement(image)
    assert found is not None
    assert not found.flipped
    assert found.millimetres == pytest.approx(2 * np.linalg.norm([63, 59, 32]))


@pytest.mark.parametrize(
    ("value", "unit", "seconds"),
    [(2.0, "sec", 2.0), (735.0, "msec", 0.735), (2e6, "usec", 2.0), (2.0, "unknown", None)],
)
def test_repetition_time_of_the_header(value: float, unit: str, seconds: float | None) -> None:
    image = _image()
    image.header.set_zooms((3.0, 3.2, 4.0, value))
    image.header.set_xyzt_units("mm", unit)
    assert repetition_time(image) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("code", ALL_CODES)
def test_all_orientations_hold_the_same_places(code: str) -> None:
    """A voxel of the image reordered to another orientation keeps its place in the world."""
    image = nb.Nifti1Image(np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6), _turned(20))
    way = ornt_transform(io_orientation(image.affine), axcodes2ornt(code))
    other = image.as_reoriented(way)
    for found in (image, other):
        place = np.argwhere(np.asarray(found.dataobj) == 77)[0]
        assert (read_grid(found).affine @ [*place, 1])[:3] == pytest.approx(
            (image.affine @ [*np.unravel_index(77, (4, 5, 6)), 1])[:3]
        )
