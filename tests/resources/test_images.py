"""Damaged images: the three readers give one reason, each in the error of its callers."""

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from brainlm_bids.api.images import load as load_api
from brainlm_bids.errors import UserError
from brainlm_bids.interfaces.images import load_affine, load_image
from brainlm_bids.resources.images import load_volume

RNG = np.random.default_rng(0)


def _whole(folder: Path, name: str) -> bytes:
    data = RNG.normal(size=(12, 12, 12, 3)).astype(np.float32)
    nb.Nifti1Image(data, np.eye(4)).to_filename(folder / name)
    return (folder / name).read_bytes()


def _bad_type(content: bytes) -> bytes:
    return content[:70] + b"\xff\x7f" + content[72:]  # `datatype` of NIfTI's header


DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "text": ("a.nii.gz", lambda _: b"not an image"),
    "empty": ("a.nii.gz", lambda _: b""),
    "cut": ("a.nii.gz", lambda content: content[: len(content) // 2]),
    "cut, not compressed": ("a.nii", lambda content: content[: len(content) // 2]),
    "unknown type": ("a.nii", _bad_type),
    "unknown type, compressed": (
        *("a.nii.gz", lambda content: gzip.compress(_bad_type(gzip.decompress(content)))),
    ),
    "negative shape": ("a.nii", lambda content: content[:42] + b"\xff\xff" + content[44:]),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_the_readers_give_the_same_reason_in_one_line(damage: str, tmp_path: Path) -> None:
    name, spoil = DAMAGES[damage]
    path = tmp_path / name
    path.write_bytes(spoil(_whole(tmp_path, name)))
    reasons = set()
    readers: list[tuple[Callable[[str], object], type[Exception]]] = [
        (load_image, UserError),
        (lambda text: load_volume(Path(text)), UserError),
        (load_api, ValueError),
    ]
    for read, expected in readers:
        with pytest.raises(expected) as refused:
            read(str(path))
        message = str(refused.value)
        assert "\n" not in message
        assert message.startswith(f"{path}: ")
        assert "is it damaged or incomplete?" in message or "0 bytes" in message
        reasons.add(message)
    assert len(reasons) == 1, reasons


@pytest.mark.parametrize("place", [900, 4000, -6])
def test_a_wrong_byte_of_a_compressed_image_is_noticed(place: int, tmp_path: Path) -> None:
    """Where it does not break the stream, the checksum at its end tells."""
    content = bytearray(_whole(tmp_path, "a.nii.gz"))
    content[place] ^= 0x10
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    for read in (load_image, load_api, lambda text: load_volume(Path(text))):
        with pytest.raises((UserError, ValueError), match=r"a.nii.gz: cannot be read \("):
            read(str(path))


def test_an_image_that_is_not_there(tmp_path: Path) -> None:
    for read in (load_image, load_affine, lambda text: load_volume(Path(text))):
        with pytest.raises(UserError, match=r"absent.nii: there is no such file"):
            read(str(tmp_path / "absent.nii"))


def test_whole_images_are_read_alike(tmp_path: Path) -> None:
    _whole(tmp_path, "a.nii.gz")
    path = tmp_path / "a.nii.gz"
    data, affine = load_image(str(path))
    again, same = load_volume(path)
    np.testing.assert_array_equal(data, again)
    np.testing.assert_array_equal(data, load_api(path)[1])
    np.testing.assert_array_equal(affine, same)
