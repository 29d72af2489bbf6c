"""NIfTI files whose headers lie, and files that never end."""

import gzip
import os
import struct
from pathlib import Path

import nibabel as nib
import numpy as np

# Places of fields in a header of NIfTI-1: their byte, and their type.
FIELDS = {
    **{"dim": (40, "8h"), "datatype": (70, "h"), "bitpix": (72, "h"), "pixdim": (76, "8f")},
    **{"vox_offset": (108, "f"), "scl_slope": (112, "f"), "scl_inter": (116, "f")},
    **{"extension": (348, "4B"), "sform_code": (254, "h"), "qform_code": (252, "h")},
}
MIB = 1 << 20


def scan(n_volumes: int = 24, shape: tuple[int, int, int] = (40, 40, 24)) -> bytes:
    """A small BOLD image of one file, uncompressed."""
    rng = np.random.default_rng(0)
    data = rng.normal(1000, 20, (*shape, n_volumes)).astype(np.int16)
    image = nib.Nifti1Image(data, np.diag([4.0, 4.0, 4.0, 1.0]))
    image.header.set_xyzt_units("mm", "sec")
    return bytes(image.to_bytes())


def with_field(content: bytes, name: str, *values: float) -> bytes:
    """The same file with other values in a field of its header."""
    place, kind = FIELDS[name]
    changed = bytearray(content)
    struct.pack_into(f"<{kind}", changed, place, *values)
    return bytes(changed)


def claiming(n_volumes: int, *shape: int) -> bytes:
    """A scan whose header claims another shape than its file holds."""
    return with_field(scan(), "dim", 4, *(shape or (40, 40, 24)), n_volumes, 1, 1, 1)


def nifti2(*shape: int) -> bytes:
    """A header of NIfTI-2 that claims a shape, with little behind it."""
    header = nib.Nifti2Header()
    header.set_data_dtype(np.float32)
    header["dim"][: len(shape) + 1] = (len(shape), *shape)
    header["vox_offset"] = 544
    header["sform_code"] = 1
    return bytes(header.binaryblock) + bytes(4 + 4096)


def plain(path: Path, content: bytes) -> Path:
    """Write a file as it is."""
    path.write_bytes(content)
    return path


def packed(path: Path, content: bytes) -> Path:
    """Write a file compressed."""
    path.write_bytes(gzip.compress(content, 1))
    return path


def zeros(path: Path, start: bytes, n_bytes: int) -> Path:
    """Write a compressed file of a beginning, and of zeros: members of gzip, one after another."""
    member = gzip.compress(bytes(16 * MIB), 9)
    with path.open("wb") as stream:
        stream.write(gzip.compress(start, 9))
        for _ in range(n_bytes // (16 * MIB)):
            stream.write(member)
    return path


def sparse(path: Path, start: bytes, n_bytes: int) -> Path:
    """Write a file that is as long as said, and takes no place on the disk."""
    path.write_bytes(start)
    os.truncate(path, n_bytes)
    return path


def with_extension(size: int, offset: float) -> bytes:
    """A scan with an extension that says how long it is, and values that begin at a byte."""
    content = with_field(with_field(scan(), "extension", 1, 0, 0, 0), "vox_offset", offset)
    return content[:352] + struct.pack("<2i", size, 6) + content[360:]
