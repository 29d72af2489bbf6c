"""What disks, memory and limits refuse is one line with the remedy, whoever told it first."""

import errno
import os
import pickle
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brainlm_bids import files, system_errors
from brainlm_bids.commands import bids_app, brainlm
from brainlm_bids.errors import UserError
from brainlm_bids.system_errors import in_one_line, put_in_place, refusal


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded", "out/a"), "have the quota raised"),
        (OSError(errno.EROFS, "Read-only file system", "out/a"), "mount it writable"),
        (OSError(errno.ESTALE, "Stale file handle", "out/a"), "see whether it is mounted"),
        (OSError(errno.EMFILE, "Too many open files", "out/a"), "ulimit -n"),
        (OSError(errno.EAGAIN, "Resource temporarily unavailable"), "ulimit -u"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "give more memory"),
        (FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"), "TMPDIR"),
        (MemoryError(), "out of memory; give more memory"),
    ],
)
def test_what_the_system_refuses_has_a_remedy(error: Exception, says: str) -> None:
    told = in_one_line(error)
    assert told is not None and says in told and "\n" not in told
    if isinstance(error, OSError) and error.errno in system_errors.ONLY_WRITING:
        assert told.startswith("out/a: cannot be written (")


@pytest.mark.parametrize(
    "error", [OSError("no number"), FileNotFoundError(2, "No such"), KeyError()]
)
def test_other_errors_are_left_to_others(error: Exception) -> None:
    assert in_one_line(error) is None


def test_a_folder_that_takes_files_refuses_nothing_and_keeps_nothing(tmp_path: Path) -> None:
    assert refusal(tmp_path) is None
    assert not list(tmp_path.iterdir())


@pytest.fixture
def anybody() -> Iterator[Path]:
    """A folder of its own, for a test that is run without the rights of a superuser."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(user)


def _told(read: Callable[[], object]) -> str:
    with pytest.raises(OSError) as found:
        read()
    return str(in_one_line(found.value))


def test_what_may_not_be_read_is_told_apart_from_what_may_not_be_written(anybody: Path) -> None:
    """The truth is what the test does: it reads, or it writes."""
    closed, open_, folder = anybody / "closed", anybody / "open", anybody / "folder"
    for path in (closed, open_):
        path.write_text("x")
    closed.chmod(0o000)
    open_.chmod(0o444)
    read = "cannot be read (Permission denied); change its permissions"
    written = "cannot be written (Permission denied); change its permissions, or give another"
    assert _told(closed.read_bytes) == f"{closed}: {read}"
    assert _told(lambda: open_.write_text("y")).startswith(f"{open_}: {written}")
    folder.mkdir()
    (folder / "a").touch()
    folder.chmod(0o000)
    assert _told(lambda: list(folder.iterdir())) == f"{folder}: {read}"
    assert _told((folder / "a").read_bytes).startswith(f"{folder / 'a'}: cannot be read or written")
    folder.chmod(0o555)
    assert _told((folder / "b").mkdir).startswith(f"{folder / 'b'}: {written}")
    assert _told(lambda: files.write_text(folder / "b", "")).startswith(
        f"{folder / 'b'}: {written}"
    )
    # another file that is read while one is written
    with pytest.raises(PermissionError) as found, files.atomically(anybody / "copy"):
        shutil.copyfile(closed, anybody / "copy")
    assert in_one_line(found.value) == f"{closed}: {read}"


def test_what_a_writer_meets_is_of_writing_also_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", damaged)
    with pytest.raises(OSError, match="Input") as found:
        files.write_text(tmp_path / "a", "x")
    sent = pickle.loads(pickle.dumps(found.value))
    says = f"{tmp_path / 'a'}: cannot be written (Input/output error); see whether the disk"
    assert str(in_one_line(sent)).startswith(says)
    unknown = str(in_one_line(OSError(errno.EIO, "Input/output error")))
    open_file = OSError(errno.EIO, "Input/output error", 3)
    assert str(in_one_line(open_file)) == unknown
    assert unknown.startswith("a file: cannot be read or written (Input/output error)")


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EIO, "see whether the disk is damaged"),
        (errno.ESTALE, "the file system lost it; see whether it is mounted"),
        (errno.EINVAL, "is it damaged or incomplete?"),
    ],
)
def test_a_disk_that_fails_while_an_input_is_read(tmp_path: Path, number: int, remedy: str) -> None:
    (tmp_path / "a.json").write_text("{}")
    says = rf"a\.json: cannot be read \({re.escape(os.strerror(number))}\); {re.escape(remedy)}"
    with pytest.raises(UserError, match=says), files.reading(tmp_path / "a.json"):
        raise OSError(number, os.strerror(number))


def full(descriptor: int) -> None:
    raise OSError(errno.EDQUOT, "Disk quota exceeded")


@pytest.mark.parametrize(
    "error", [RuntimeError("iostream error"), OSError("8 requested, 0 written")]
)
def test_a_library_that_tells_a_full_disk_in_its_own_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    target = tmp_path / "weights.bin"
    with pytest.raises(type(error)) as told, files.atomically(target):  # there is space
        raise error
    assert told.value is error
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="quota") as told, files.atomically(target):
        raise error
    assert (told.value.errno, told.value.filename) == (errno.EDQUOT, str(target))
    assert told.value.__cause__ is error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "code"),
    [(OSError(errno.EMFILE, "Too many open files"), 1), (MemoryError(), 1), (KeyError("x"), 70)],
)
def test_the_app_tells_a_refusal_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
) -> None:
    def fail(words: object) -> None:
        raise error

    monkeypatch.setattr(bids_app, "parse", fail)
    assert bids_app.main(["x"]) == code
    assert ("Traceback" in capsys.readouterr().err) is (code == 70)


def test_the_tools_tell_a_refusal_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "fsync", full)
    assert brainlm.main(["phantom", str(tmp_path / "p"), "--subjects", "1", "--volumes", "3"]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(f"brainlm: {tmp_path / 'p'}")
    assert last.endswith("cannot be written (Disk quota exceeded); free some space, or have the "
                         "quota raised")  # fmt: skip
    assert not (tmp_path / "p").exists()
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "a").touch()
    assert brainlm.main(["phantom", str(kept), "--subjects", "1", "--volumes", "3"]) == 1
    assert (kept / "a").exists()


@pytest.mark.parametrize(("number", "refused"), [(errno.EBUSY, 2), (errno.ESTALE, 3)])
def test_a_rename_that_is_refused_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, refused: int
) -> None:
    rename, attempts = Path.replace, []

    def busy(path: Path, target: Path) -> Path:
        attempts.append(path)
        if len(attempts) <= refused:
            raise OSError(number, os.strerror(number), str(path))
        return rename(path, target)

    monkeypatch.setattr(system_errors, "PAUSES", (0.01, 0.01, 0.01))
    monkeypatch.setattr(Path, "replace", busy)
    files.write_text(tmp_path / "a.tsv", "new")
    assert (tmp_path / "a.tsv").read_text() == "new" and len(attempts) == refused + 1
    refused += 100
    with pytest.raises(OSError, match=r"a\.tsv"):
        files.write_text(tmp_path / "a.tsv", "newer")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tsv"]
    assert (tmp_path / "a.tsv").read_text() == "new"


def test_a_rename_whose_answer_was_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.replace

    def lost(path: Path, target: Path) -> Path:
        rename(path, target)
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Path, "replace", lost)
    (tmp_path / "a").write_text("new")
    put_in_place(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "new"
