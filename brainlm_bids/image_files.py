"""Open images whose headers may claim anything: a claim is compared with the file first.

Libraries reserve the memory that a header claims before they read the values, and read its
extensions as long as they say they are. A header that claims more than its file holds, or can hold
when it is decompressed, is refused here in one line, before either.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from brainlm_bids.bounds import MIB, check_regular, in_bytes
from brainlm_bids.errors import UserError
from brainlm_bids.files import check_readable, reading

# Deflate, the method of gzip, makes no more than this of a byte.
LARGEST_EXPANSION = 1032
# Scans expand two to five times, and masks of one head up to some hundred times; an image this
# large that expands further holds nothing but the same value.
SUSPECT_BYTES, SUSPECT_EXPANSION = 256 * MIB, 200
# A day at the finest resolution and rate of fMRI is less.
LARGEST_IMAGE = 256 * 1024 * MIB
# Extensions of a header, such as the brain models of CIFTI, are some megabytes.
LARGEST_HEADER = 64 * MIB
# What programs append to the values without a meaning.
LARGEST_REST = 4096
# Bytes of a value by NIfTI's code of its type.
_BYTES = {
    **{2: 1, 4: 2, 8: 4, 16: 4, 32: 8, 64: 8, 128: 3, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8},
    **{1536: 16, 1792: 16, 2048: 32, 2304: 4},
}
_CHUNK = MIB
_LONGEST = 540  # bytes of a header, in NIfTI-2


class Claim(NamedTuple):
    """What the header of a NIfTI file says of the file.

    Attributes
    ----------
    shape
        Of the array.
    offset
        Byte at which the values begin.
    n_bytes
        Size of the decompressed file.
    """

    shape: tuple[int, ...]
    offset: int
    n_bytes: int


def open_image(path: str | Path) -> Any:
    """Open an image, of which no value is read yet.

    Parameters
    ----------
    path
        A file that nibabel reads.

    Returns
    -------
    nibabel image
        Its header has been read.

    Raises
    ------
    UserError
        If the file cannot be read, or is not what its header claims. nibabel's own errors for
        other damages are passed on.
    """
    import nibabel as nb

    check_image(Path(path))
    return nb.load(path)


def check_image(path: Path, *, whole: bool = False) -> int:
    """Raise UserError if a file is not there, was never fetched, or is not what its header claims.

    Parameters
    ----------
    path
        The image.
    whole
        Whether to read a compressed file to its end, too: to find one that is cut short, or that
        its own checksum shows to be damaged.

    Returns
    -------
    int
        Its bytes; of a compressed one that was read to its end those of its content.
    """
    return examined(path, whole=whole).size


class Examined(NamedTuple):
    """An image that can be read, as far as its header tells.

    Attributes
    ----------
    size
        Its bytes; of a compressed one that was read to its end those of its content.
    start
        What it begins with, up to 540 bytes decompressed: its header. Empty where it cannot be
        decompressed, and in files that are not NIfTI.
    """

    size: int
    start: bytes = b""


def examined(path: Path, *, whole: bool = False) -> Examined:
    """Do what `check_image` does, and keep the beginning of the file."""
    check_readable(path)
    with reading(path):
        size = check_regular(path)
        if not path.name.endswith((".nii", ".nii.gz")):
            return Examined(size)
        with _stream(path) as stream:
            try:
                start = stream.read(_LONGEST)
                claim = _claim(path, start, stream)
            except (OSError, EOFError, zlib.error):
                if whole:
                    raise
                return Examined(size)  # nibabel tells what is wrong
            if claim is None:
                return Examined(size, start)
            _check_claim(path, claim, size)
            if whole and _is_packed(path):
                size = _read_to_end(path, claim, stream)
            return Examined(size, start)


def checked_start(path: Path) -> bytes:
    """The beginning of an image, with its header, which is checked as `check_image` does.

    Parameters
    ----------
    path
        The image.

    Returns
    -------
    bytes
        Up to 540; fewer, or none, where it cannot be read, which nibabel explains.
    """
    size = check_regular(path)
    with _stream(path) as stream:
        try:
            start = stream.read(_LONGEST)
            claim = _claim(path, start, stream)
        except (OSError, EOFError, zlib.error):
            return b""
        if claim is not None:
            _check_claim(path, claim, size)
        return start


def _is_packed(path: Path) -> bool:
    return path.suffix == ".gz"


def _stream(path: Path) -> IO[bytes]:
    if _is_packed(path):
        return cast(IO[bytes], gzip.GzipFile(path))
    return path.open("rb")


def _claim(path: Path, start: bytes, stream: IO[bytes]) -> Claim | None:
    """What a header claims; None for a file that is not NIfTI, which nibabel refuses."""
    order = next((o for o in "<>" if start[:4] == struct.pack(f"{o}i", 540)), "")
    if order and len(start) == 540:
        size, dims = 540, struct.unpack_from(f"{order}8q", start, 16)
        code, (offset,) = struct.unpack_from(f"{order}h", start, 12)[0], _at(order, "q", start, 168)
    elif start[344:347] in (b"n+1", b"ni1"):
        order = "<" if 0 <= _at("<", "h", start, 40)[0] <= 7 else ">"
        size, dims = 348, struct.unpack_from(f"{order}8h", start, 40)
        code, (offset,) = _at(order, "h", start, 70)[0], _at(order, "f", start, 108)
    else:
        return None
    shape = tuple(dims[1 : 1 + dims[0]]) if 0 < dims[0] <= 7 else ()
    if not shape or min(shape) < 1:
        raise _damaged(path, f"the shape {shape}")
    if not 0 <= offset <= LARGEST_HEADER:
        raise _damaged(path, f"that the values begin at byte {offset:.10g}")
    if code not in _BYTES:
        return None  # nibabel names the types that it does not know
    offset = max(int(offset), size + 4)
    _check_extensions(path, order, start[size:], offset - size, stream)
    return Claim(shape, offset, offset + math.prod(shape) * _BYTES[code])


def _at(order: str, kind: str, block: bytes, place: int) -> tuple[Any, ...]:
    return struct.unpack_from(f"{order}{kind}", block, place)


def _check_extensions(path: Path, order: str, read: bytes, n_bytes: int, stream: IO[bytes]) -> None:
    """Refuse extensions that do not end before the values.

    read: what follows the header and has been read; n_bytes: from there to the values.
    """
    if n_bytes < 4 + 16 or read[:1] in (b"", b"\0"):
        if read[:1] not in (b"", b"\0"):
            raise _damaged(path, "extensions without a place for them")
        return
    block = read + stream.read(max(0, n_bytes - len(read)))
    place = 4
    while n_bytes - place >= 16:
        size = _at(order, "i", block.ljust(n_bytes, b"\0"), place)[0]
        if not 8 <= size <= n_bytes - place:
            raise _damaged(path, f"an extension of {size} bytes")
        place += size


def _check_claim(path: Path, claim: Claim, held: int) -> None:
    """Compare what a header claims with the size of the file on the disk."""
    compressed = _is_packed(path)
    if claim.n_bytes > held * (LARGEST_EXPANSION if compressed else 1):
        raise _too_much(path, claim, held, compressed)
    if claim.n_bytes > LARGEST_IMAGE:
        raise _damaged(path, f"{_shape(claim)}, {in_bytes(claim.n_bytes)}, more than any scan has")
    if compressed and claim.n_bytes > max(SUSPECT_BYTES, SUSPECT_EXPANSION * held):
        raise UserError(
            f"{path}: {in_bytes(held)} would expand to {in_bytes(claim.n_bytes)}, as a scan never "
            "does; is the file damaged?"
        )


def _read_to_end(path: Path, claim: Claim, stream: IO[bytes]) -> int:
    """Read a compressed file as far as its header says, and make sure that it ends there."""
    stream.seek(0)
    n_read = 0
    while n_read <= claim.n_bytes + LARGEST_REST:
        chunk = stream.read(min(_CHUNK, claim.n_bytes + LARGEST_REST + 1 - n_read))
        if not chunk:
            break
        n_read += len(chunk)
    if n_read < claim.n_bytes:
        raise _too_much(path, claim, n_read, False)
    if n_read > claim.n_bytes + LARGEST_REST:
        raise UserError(
            f"{path}: holds more values than its header claims ({_shape(claim)}); "
            "is the header damaged?"
        )
    return n_read


def _damaged(path: Path, claimed: str) -> UserError:
    return UserError(f"{path}: its header claims {claimed}; is it damaged or incomplete?")


def _too_much(path: Path, claim: Claim, held: int, compressed: bool) -> UserError:
    holds = f"the file holds {in_bytes(held)}{' compressed' if compressed else ''}"
    return _damaged(path, f"{_shape(claim)}, {in_bytes(claim.n_bytes)}, but {holds}")


def _shape(claim: Claim) -> str:
    return " × ".join(map(str, claim.shape)) + " values"
