"""What is recorded of the input files of a recording, so that a call that resumes reads none.

Beside the records of a recording's stages lies `<recording>_inputs.json`. For each file (by BIDS
URI) it has what tells whether the file is still the same, its checksum, and its header if that is
NIfTI-1:

    {"Files": {"bids:raw:sub-01/func/sub-01_task-rest_bold.nii.gz": {
        "Size": 1234, "Modified": 1764500000000000000, "Changed": 1764500000000000000,
        "Inode": 42, "Looked": 1764530000000000000, "SHA256": "...", "Header": "base64"}}}

A file is taken to be the same only if size, time of modification, time of change (of content or
attributes; no program can set it back, so that it betrays `touch -r` and `rsync --inplace -t`) and
number on its disk are all as recorded. Anything else, such as a copy on another disk, a content
that git-annex fetched again, or a network file system that numbers files anew, only costs reading
the file once more: its checksum decides whether something is computed, and the record is brought up
to date. As in git, times that are not clearly older than the look at the file prove nothing: it may
have been changed within the resolution of the clock, or the clocks of two machines may differ.

A file whose content git-annex has dropped is the same if the key that names the content is (`Key`).
`Beside` has the keys of further images in git-annex, those that the images of the recording were
chosen from: the choice is the same without them.

The record is apart from that of the stage, which the step that completes it alone writes.
"""

import base64
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainlm_bids.annex import annex_key, is_absent
from brainlm_bids.bids.annexed_content import content_key
from brainlm_bids.bids.outputs import record_path
from brainlm_bids.bids.tree import NIFTI
from brainlm_bids.errors import UserError
from brainlm_bids.files import file_sha256, read_json, write_json

LOG = logging.getLogger("brainlm_bids")
RECORD = "inputs"  # in the place of the name of a stage
# Times are kept in steps of up to 2 s (FAT), and clocks of a cluster agree to a second or so.
RESOLUTION_NS = 3_000_000_000
HEADER_BYTES = 348
CIFTI = ".dtseries.nii"


@dataclass(frozen=True)
class Identity:
    """What tells whether a file is still the same; times in ns."""

    size: int
    modified: int
    changed: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> "Identity":
        """Of a file, or of that which a link leads to. Raises OSError."""
        stat = path.stat()
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


@dataclass(frozen=True)
class Known:
    """A file as it was when it was read.

    Attributes
    ----------
    identity
        Before it was read.
    looked
        When that was, ns.
    sha256
        Of its content.
    header
        Of a NIfTI-1 image; empty for others.
    key
        Of git-annex, that names the content; empty for other files.
    """

    identity: Identity
    looked: int
    sha256: str
    header: bytes = b""
    key: str = ""

    def vouches_for(self, now: Identity) -> bool:
        """Whether a file that has an identity now is as it was."""
        latest = max(now.modified, now.changed)
        return now == self.identity and latest < self.looked - RESOLUTION_NS

    def vouches_for_dropped(self, path: Path) -> bool:
        """Whether a file whose content is not there had this one, and nothing of it is needed."""
        enough = self.header or not path.name.endswith(NIFTI) or path.name.endswith(CIFTI)
        return bool(self.key and enough) and annex_key(path) == self.key and is_absent(path)

    def to_json(self) -> dict[str, Any]:
        """As the record has it."""
        return {
            "Size": self.identity.size,
            "Modified": self.identity.modified,
            "Changed": self.identity.changed,
            "Inode": self.identity.inode,
            "Looked": self.looked,
            "SHA256": self.sha256,
            "Header": base64.b64encode(self.header).decode(),
            **({"Key": self.key} if self.key else {}),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Known":
        """From a record. Raises KeyError, TypeError or ValueError for a damaged one."""
        numbers = (values[key] for key in ("Size", "Modified", "Changed", "Inode"))
        identity = Identity(*(int(number) for number in numbers))
        header = base64.b64decode(values["Header"], validate=True)
        if len(header) not in (0, HEADER_BYTES):
            raise ValueError("no header of NIfTI-1")
        return cls(
            identity,
            int(values["Looked"]),
            str(values["SHA256"]),
            header,
            str(values.get("Key", "")),
        )


def look_at(path: Path, header: bytes, key_of: Callable[[Path], str] = content_key) -> Known:
    """Read a file for its checksum; UserError names one that cannot be read.

    Parameters
    ----------
    path
        Of the file.
    header
        Of a NIfTI-1 image; empty for others.
    key_of
        Gives the key of git-annex that names the content of a file.
    """
    looked = time.time_ns()
    try:
        identity = Identity.of(path)
    except OSError:
        identity = Identity(-1, 0, 0, 0)  # the next line says why
    return Known(identity, looked, file_sha256(path), header, key_of(path))


class KnownInputs:
    """Records of the input files of an output folder's recordings.

    Parameters
    ----------
    output_dir
        The folder.
    roots
        The source data sets, by their names in BIDS URIs.
    verify
        Whether every file is read again. What is recorded is then only compared with.
    """

    def __init__(
        self, output_dir: Path, roots: Mapping[str, Path], *, verify: bool = False
    ) -> None:
        self._output_dir = output_dir
        self._roots = dict(roots)
        self._verify = verify
        self._recorded: dict[Path, Known] = {}
        self._noted: dict[str, frozenset[Path]] = {}
        self._beside: dict[str, dict[Path, str]] = {}

    def recall(self, stem: str) -> dict[Path, Known]:
        """The files of a recording that are as they were recorded; none with `verify`."""
        recorded, self._beside[stem] = self._read(stem)
        self._noted[stem] = frozenset(recorded)
        self._recorded |= recorded
        if self._verify:
            return {}
        return {path: known for path, known in recorded.items() if _is_same(path, known)}

    def beside(self, stem: str) -> dict[Path, str]:
        """Images that those of a recording were chosen from, and the keys of their contents."""
        return {} if self._verify else dict(self._beside.get(stem, {}))

    def note(self, stem: str, files: Mapping[Path, Known], beside: Mapping[Path, str]) -> None:
        """Record the files of a recording, unless that is what is recorded already.

        beside: images that they were chosen from, and the keys of their contents.
        """
        same = all(self._recorded.get(path) == known for path, known in files.items())
        same = same and self._beside.get(stem, {}) == beside
        if same and self._noted.get(stem) == frozenset(files):
            return
        values = {self._uri(path): known.to_json() for path, known in files.items()}
        record: dict[str, object] = {"Files": dict(sorted(values.items()))}
        if beside:
            record["Beside"] = {self._uri(path): key for path, key in sorted(beside.items())}
        write_json(self._path(stem), record)

    def compare(self, path: Path, now: Known) -> None:
        """Warn of a file whose content is another although nothing else of it is."""
        before = self._recorded.get(path)
        if before is None or before.sha256 == now.sha256:
            return
        if before.vouches_for(now.identity):
            LOG.warning(
                f"{path}: its content is not what it was, although its size and times are; is the "
                "disk damaged? What depends on it is computed again"
            )

    def _path(self, stem: str) -> Path:
        return record_path(self._output_dir, stem, RECORD)

    def _read(self, stem: str) -> tuple[dict[Path, Known], dict[Path, str]]:
        try:
            record = read_json(self._path(stem))
            files = {self._place(k): Known.from_json(one) for k, one in record["Files"].items()}
            beside = {self._place(k): str(key) for k, key in record.get("Beside", {}).items()}
        except (UserError, KeyError, TypeError, ValueError, AttributeError):
            return {}, {}  # there is none, or it is damaged: files are read
        return files, beside

    def _uri(self, path: Path) -> str:
        for name, root in self._roots.items():
            if path.is_relative_to(root):
                return f"bids:{name}:{path.relative_to(root).as_posix()}"
        return str(path)

    def _place(self, uri: str) -> Path:
        scheme, _, rest = uri.partition(":")
        name, _, relative = rest.partition(":")
        if scheme != "bids":
            return Path(uri)
        return self._roots[name] / relative


def _is_same(path: Path, known: Known) -> bool:
    try:
        return known.vouches_for(Identity.of(path)) or known.vouches_for_dropped(path)
    except OSError:
        return known.vouches_for_dropped(path)
