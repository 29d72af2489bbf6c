"""The cache of what was downloaded: folders, checksums, and downloads that can be resumed."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from brainlm_bids.errors import UserError
from brainlm_bids.files import file_sha256

# A firewall that swallows packets must cost seconds, not minutes: connect, then silence (s)
TIMEOUT = (3.05, 30.0)


@dataclass(frozen=True)
class Sources:
    """Where downloads come from; tests and mirrors put other addresses in."""

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
    """Return `$BRAINLM_BIDS_HOME`, else ~/.cache/brainlm-bids; None for a user without a home."""
    folder = os.environ.get("BRAINLM_BIDS_HOME")
    if folder:
        return Path(folder).expanduser()
    try:
        return Path.home() / ".cache" / "brainlm-bids"
    except RuntimeError:
        return None


def chosen_home(home: Path | None) -> Path | None:
    """Return the given folder of the cache, by default that of this user."""
    return cache_home() if home is None else Path(home)


def _shipped() -> Path | None:
    """What an image carries (`docker/bake.py`), laid out as the cache; never written to."""
    folder = os.environ.get("BRAINLM_BIDS_SHIPPED")
    return Path(folder) if folder else None


def kept_homes(home: Path | None) -> list[Path]:
    """The folders to look in before anything is downloaded: the cache, then the image's."""
    return [folder for folder in (home, _shipped()) if folder is not None]


def writable_home(home: Path | None) -> Path:
    """Return the folder for downloads.

    Raises
    ------
    UserError
        If there is none.
    """
    if home is None:
        raise UserError("no home folder to keep downloads in: set BRAINLM_BIDS_HOME")
    return home


def is_present(path: Path | None) -> bool:
    """Tell whether a file is there and has bytes: TemplateFlow leaves stubs of 0 bytes."""
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
    """Bring one file; it appears under its name when whole, and with the sha256 that was asked.

    A resumable download (its sha256 is known) that breaks off leaves its part, with which the next
    one goes on; of several processes one downloads and the others wait for it.
    """
    import requests

    name = sha256[:16] if resumable and sha256 else uuid.uuid4().hex[:8]
    part = target.with_name(f".{target.name}.{name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(part) if resumable else nullcontext():
            if resumable and is_present(target) and file_sha256(target) == sha256:
                return target
            _transfer(url, part, headers or {}, resumable)
            got = file_sha256(part)
            if sha256 is not None and got != sha256:
                part.unlink()
                raise UserError(f"{url} came with sha256 {got}, expected {sha256}: not kept")
            part.replace(target)
    except requests.RequestException as error:
        raise UserError(f"cannot download {url}: {reason_of(error)}") from error
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        if not resumable and part.parent.is_dir():
            part.unlink(missing_ok=True)
    return target


@contextmanager
def _lock(part: Path) -> Iterator[None]:
    from filelock import FileLock

    lock = FileLock(part.with_suffix(".lock"))
    with lock:
        yield
    Path(lock.lock_file).unlink(missing_ok=True)


def _transfer(url: str, part: Path, headers: Mapping[str, str], resumable: bool) -> None:
    """Write the file, or what is missing of it; goes on by itself as long as bytes come."""
    import requests

    while True:
        start = part.stat().st_size if resumable and part.exists() else 0
        try:
            return _stream_to(url, part, headers, start)
        except requests.RequestException:
            if not resumable or not part.exists() or part.stat().st_size <= start:
                raise


def _stream_to(url: str, part: Path, headers: Mapping[str, str], start: int) -> None:
    import requests
    from tqdm import tqdm

    request_headers = {**headers, "Accept-Encoding": "identity"}
    if start:
        request_headers["Range"] = f"bytes={start}-"
    with requests.get(url, stream=True, timeout=TIMEOUT, headers=request_headers) as response:
        if start and response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is missing; the caller's sum tells whether that is true
        response.raise_for_status()
        size = start if response.status_code == requests.codes.partial_content else 0
        length = int(response.headers.get("Content-Length", 0))
        total = size + length if length else None
        name = part.name.split(".", 1)[1].rsplit(".", 2)[0]
        bar = tqdm(total=total, initial=size, unit="B", unit_scale=True, desc=name, disable=None)
        with part.open("ab" if size else "wb") as stream, bar:
            for chunk in response.iter_content(1 << 18):
                stream.write(chunk)
                size += len(chunk)
                bar.update(len(chunk))
            stream.flush()
            os.fsync(stream.fileno())
    if size == 0 or (total and size != total):
        raise requests.ConnectionError(f"only {size} of {total or 'some'} bytes came")


def reason_of(error: BaseException) -> str:
    """Return the innermost cause of a chain of network errors, on one line."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
