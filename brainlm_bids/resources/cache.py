"""The cache of downloads: folders, checksums, and downloads that can be resumed."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainlm_bids.amount import Amount
from brainlm_bids.bounds import in_bytes
from brainlm_bids.errors import UserError
from brainlm_bids.files import file_sha256
from brainlm_bids.locks import locked
from brainlm_bids.system_errors import put_in_place

# Time to connect, and time without data (s): a firewall that drops packets costs seconds only.
TIMEOUT = (3.05, 30.0)
# Fewer bytes in as many seconds are no download: 450 MB would take five days.
LEAST_BYTES, PATIENCE_S = 60_000, 60.0
# An interrupted download goes on by itself while it brings more than this, and a few times else.
ENOUGH_BYTES, MOST_SMALL_PARTS = 1_000_000, 5
# No resource is as large: without a checksum (small files), and with one (weights).
LARGEST_SMALL, LARGEST = 256 << 20, 16 << 30


@dataclass(frozen=True)
class Sources:
    """Addresses of downloads; tests and mirrors replace them."""

    atlas: str = (
        "https://raw.githubusercontent.com/vandijklab/BrainLM/b591d88/toolkit/atlases/"
        "A424%2B2mm.nii.gz"
    )
    templateflow: str | None = None  # None: the address that TemplateFlow's client knows
    hub: str | None = None  # None: the Hugging Face endpoint of the environment
    cifti_atlas: str = (
        "https://raw.githubusercontent.com/vandijklab/BrainLM/b591d88/toolkit/atlases/"
        "A424.dlabel.nii"
    )


SOURCES = Sources()


def cache_home() -> Path | None:
    """Return the folder of the cache.

    Returns
    -------
    Path or None
        `$BRAINLM_BIDS_HOME`, else ~/.cache/brainlm-bids; None for a user without a home.
    """
    folder = os.environ.get("BRAINLM_BIDS_HOME")
    if folder:
        return Path(folder).expanduser()
    try:
        return Path.home() / ".cache" / "brainlm-bids"
    except RuntimeError:
        return None


def chosen_home(home: Path | None) -> Path | None:
    """Return a given folder of the cache, by default that of this user.

    Parameters
    ----------
    home
        The folder, or None.

    Returns
    -------
    Path or None
        See `cache_home`.
    """
    return cache_home() if home is None else Path(home)


def _shipped() -> Path | None:
    """The resources in a container image (`docker/bake.py`), laid out as the cache; read-only."""
    folder = os.environ.get("BRAINLM_BIDS_SHIPPED")
    return Path(folder) if folder else None


def kept_homes(home: Path | None) -> list[Path]:
    """Return the folders to search before anything is downloaded.

    Parameters
    ----------
    home
        Folder of the cache.

    Returns
    -------
    list of Path
        The cache, then the resources in a container image.
    """
    return [folder for folder in (home, _shipped()) if folder is not None]


def writable_home(home: Path | None) -> Path:
    """Return the folder for downloads.

    Parameters
    ----------
    home
        Folder of the cache.

    Returns
    -------
    Path
        The same folder.

    Raises
    ------
    UserError
        If there is none.
    """
    if home is None:
        raise UserError("no home folder for downloads: set BRAINLM_BIDS_HOME")
    return home


def is_present(path: Path | None) -> bool:
    """Whether a file exists and is not empty: TemplateFlow leaves empty stubs.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    bool
        False also if it cannot be accessed.
    """
    try:
        return path is not None and path.is_file() and path.stat().st_size > 0
    except OSError:
        return False


def download(
    url: str,
    target: Path,
    sha256: str | None = None,
    *,
    resumable: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Path:
    """Download a file, which appears under its name only when complete and with the right checksum.

    An interrupted resumable download leaves its part, which the next one continues; of several
    processes one downloads and the others wait for it.

    Parameters
    ----------
    url
        Its address.
    target
        Where to store it.
    sha256
        Its checksum, if known.
    resumable
        Whether to continue an interrupted download; needs the checksum.
    headers
        Headers of the request.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UserError
        If it cannot be downloaded or written, or its checksum differs.
    """
    import requests

    name = sha256[:16] if resumable and sha256 else uuid.uuid4().hex[:8]
    part = target.with_name(f".{target.name}.{name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(part) if resumable else nullcontext():
            if resumable and is_present(target) and file_sha256(target) == sha256:
                return target
            try:
                _transfer(url, part, headers or {}, resumable)
                received = file_sha256(part)
                if sha256 is not None and received != sha256:
                    raise UserError(f"{url} has the sha256 {received}, expected {sha256}: not kept")
            except UserError:
                part.unlink(missing_ok=True)
                raise
            put_in_place(part, target)
    except (requests.RequestException, ValueError) as error:  # a redirect to no address
        raise UserError(f"cannot download {url}: {reason_of(error)}") from error
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        if not resumable and part.parent.is_dir():
            part.unlink(missing_ok=True)
    return target


@contextmanager
def _lock(part: Path) -> Iterator[None]:
    path = part.with_suffix(".lock")
    with locked(path, -1):
        yield
    path.unlink(missing_ok=True)


def _transfer(url: str, part: Path, headers: Mapping[str, str], resumable: bool) -> None:
    """Write the file, or the missing part of it; goes on as long as enough arrives."""
    import requests

    small_parts = 0
    while True:
        start = part.stat().st_size if resumable and part.exists() else 0
        try:
            return _stream_to(url, part, headers, start, LARGEST if resumable else LARGEST_SMALL)
        except requests.Timeout:
            raise
        except requests.RequestException:
            brought = part.stat().st_size - start if resumable and part.exists() else 0
            small_parts += brought < ENOUGH_BYTES
            if brought <= 0 or small_parts > MOST_SMALL_PARTS:
                raise


def _stream_to(url: str, part: Path, headers: Mapping[str, str], start: int, largest: int) -> None:
    import requests

    request_headers = {**headers, "Accept-Encoding": "identity"}
    if start:
        request_headers["Range"] = f"bytes={start}-"
    with requests.get(url, stream=True, timeout=TIMEOUT, headers=request_headers) as response:
        if start and response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is missing; the caller compares the checksum
        response.raise_for_status()
        size = start if response.status_code == requests.codes.partial_content else 0
        length = int(response.headers.get("Content-Length", 0))
        total = size + length if length else None
        name = part.name.split(".", 1)[1].rsplit(".", 2)[0]
        amount = Amount(f"downloading {name}", total or 0, size, unit="B")
        with part.open("ab" if size else "wb") as stream, amount:
            for chunk in _arriving(response):
                stream.write(chunk)
                size += len(chunk)
                amount.advance(len(chunk))
                if size > largest:
                    raise UserError(f"{url} sends more than {in_bytes(largest)}: not kept")
            stream.flush()
            os.fsync(stream.fileno())
    if size == 0 or (total and size != total):
        raise requests.ConnectionError(f"only {size} of {total or 'some'} bytes were received")


def _arriving(response: Any) -> Iterator[bytes]:
    """What arrives, as soon as it does; a RequestException if that is too little, or breaks off."""
    import requests
    from urllib3.exceptions import HTTPError

    # versions of urllib3 before 2.2 wait for all of it
    read = getattr(response.raw, "read1", response.raw.read)
    since, arrived = time.monotonic(), 0
    while True:
        try:
            chunk = read(1 << 18, decode_content=False)
        except HTTPError as error:
            raise requests.ConnectionError(error) from error
        if not chunk:
            return
        yield chunk
        arrived += len(chunk)
        waited = time.monotonic() - since
        if waited > PATIENCE_S:
            if arrived < LEAST_BYTES:
                text = f"only {in_bytes(arrived)} arrived in {waited:.0f} s; try later"
                raise requests.Timeout(text)
            since, arrived = time.monotonic(), 0


def reason_of(error: BaseException) -> str:
    """Return the innermost cause of a chain of network errors, on one line.

    Parameters
    ----------
    error
        The error.

    Returns
    -------
    str
        Its first line.
    """
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
