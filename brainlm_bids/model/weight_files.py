"""Read the tensors of a checkpoint. It may come from anybody: no code of it is ever run."""

import pickle
import struct
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from brainlm_bids.bounds import MIB, check_regular, in_bytes
from brainlm_bids.errors import UserError

# The table of contents of a file of tensors: names, types and shapes, some hundred kilobytes.
_LARGEST_CONTENTS = 8 * MIB
_MOST_RECORDS = 100_000


def read_tensors(file: Path, *, mapped: bool = False) -> dict[str, Tensor]:
    """Tensors by name.

    Parameters
    ----------
    file
        A .safetensors, or a file that torch saved (version 1.6 or later).
    mapped
        Whether to map the file, so that values are read from it when they are used.

    Returns
    -------
    dict of str to Tensor
        Each with the shape and the type of the file.

    Raises
    ------
    UserError
        If the file is damaged, holds more than plain tensors, or expands when it is read.
    """
    try:
        if file.suffix == ".safetensors":
            _check_contents(file)
            return load_file(file)
        _check_archive(file)
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except (UserError, MemoryError):
        raise
    except SafetensorError as error:
        raise UserError(f"{file}: damaged or truncated ({_line(error)}); fetch it again") from None
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file}: refused, it contains more than plain tensors, or is damaged ({_line(error)})"
        ) from None
    except Exception as error:  # of any kind, where bytes of the file were changed
        raise UserError(f"{file}: damaged or truncated ({_line(error)}); fetch it again") from None
    if not isinstance(state, dict) or not all(map(_is_plain, state.items())):
        raise UserError(f"{file}: refused, it is not a plain table of named tensors")
    return state


def _is_plain(item: tuple[object, object]) -> bool:
    name, value = item
    return (
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def _check_contents(file: Path) -> None:
    """Refuse a .safetensors whose table of contents is longer than one can be."""
    size = check_regular(file)
    with file.open("rb") as stream:
        start = stream.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 0 < length <= min(_LARGEST_CONTENTS, size - 8):
        raise UserError(
            f"{file}: damaged or truncated (its header claims {in_bytes(length)}, the file holds "
            f"{in_bytes(size)}); fetch it again"
        )


def _check_archive(file: Path) -> None:
    """Refuse what torch would decompress, or unpickle without end."""
    size = check_regular(file)
    if not zipfile.is_zipfile(file):
        with file.open("rb") as stream:
            is_pickle = stream.read(2) in (b"\x80\x02", b"\x80\x03", b"\x80\x04")
        if not is_pickle:
            raise UserError(f"{file}: damaged or truncated (not an archive); fetch it again")
        raise UserError(
            f"{file}: refused, it is a plain pickle, which may contain more than plain tensors; "
            "save it as model.safetensors, or with torch 1.6 or later"
        )
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    contents = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
    if (
        len(entries) > _MOST_RECORDS
        or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        or sum(entry.file_size for entry in entries) > size
        or any(entry.file_size > _LARGEST_CONTENTS for entry in contents)
    ):
        raise UserError(f"{file}: refused, its records would expand when they are read")


def _line(error: BaseException) -> str:
    """The first line of an error message of a library, which may be very long."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:120]
