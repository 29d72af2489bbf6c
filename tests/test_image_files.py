"""What a header claims is compared with the file; whole files of every kind are read as ever."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from brainlm_bids.errors import UserError
from brainlm_bids.image_files import check_image, open_image

DATA = np.arange(6 * 5 * 4 * 3, dtype=np.int16).reshape(6, 5, 4, 3)


def _image(kind: type = nib.Nifti1Image, big: bool = False) -> bytes:
    header = kind.header_class(endianness=">" if big else "<")
    header.set_data_dtype(np.int16)
    return bytes(kind(DATA, np.diag([3.0, 3.0, 3.0, 1.0]), header).to_bytes())


def _with_extension() -> bytes:
    image = nib.Nifti1Image(DATA, np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a" * 5000))
    return bytes(image.to_bytes())


def _members(content: bytes) -> bytes:
    """As bgzip writes it: several members, the last of which is empty."""
    return gzip.compress(content[:500]) + gzip.compress(content[500:]) + gzip.compress(b"")


def _claims(content: bytes, n_volumes: int) -> bytes:
    return content[:48] + n_volumes.to_bytes(2, "little") + content[50:]


WHOLE = {
    "plain.nii": _image(),
    "swapped.nii": _image(big=True),
    "two.nii": _image(nib.Nifti2Image),
    "extension.nii": _with_extension(),
    "padded.nii": _image() + bytes(512),
    "packed.nii.gz": gzip.compress(_image()),
    "members.nii.gz": _members(_image()),
    "padded.nii.gz": gzip.compress(_image() + bytes(512)),
    "swapped2.nii.gz": gzip.compress(_image(nib.Nifti2Image, big=True)),
}


@pytest.mark.parametrize("name", list(WHOLE))
def test_a_whole_file_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(WHOLE[name])
    check_image(path, whole=True)
    assert np.array_equal(np.asarray(open_image(path).dataobj), DATA)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.nii", _claims(_image(), 4), "6 × 5 × 4 × 4 values, 1.3 kB, but the file holds 1.1 kB"),
        ("b.nii.gz", gzip.compress(_claims(_image(), 4)), "but the file holds 1.1 kB"),
        ("c.nii.gz", gzip.compress(_image() + bytes(5000)), "more values than its header claims"),
        ("d.nii", _image()[:-2], "but the file holds"),
        ("e.nii.gz", gzip.compress(_image())[:-8], "is it damaged or incomplete?"),
    ],
)
def test_a_header_that_lies_is_told_in_one_line(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        check_image(path, whole=True)
    assert said in str(refused.value) and str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)
