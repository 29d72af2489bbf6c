"""What disks, memory and limits refuse is one line with the remedy, whoever told it first."""

import errno
import multiprocessing
import os
from pathlib import Path

import pytest

from brainlm_bids import files, system_errors
from brainlm_bids.commands import bids_app, brainlm
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
    if isinstance(error, OSError) and error.errno in system_errors.CANNOT_WRITE:
        reading = "" if error.errno in system_errors.ONLY_WRITING else "read or "
        assert told.startswith(f"out/a: cannot be {reading}written (")


def told_to_nobody(paths: tuple[Path, Path], answers: "multiprocessing.SimpleQueue[str]") -> None:
    os.setuid(65534)
    secret, shut = paths
    for action in (secret.read_text, (shut / "a.tsv").touch):
        try:
            action()
        except PermissionError as error:
            answers.put(in_one_line(error) or "")
        else:
            answers.put("allowed")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_file_that_may_not_be_read_is_not_told_as_one_that_may_not_be_written(
    tmp_path: Path,
) -> None:
    secret, shut = tmp_path / "secret.json", tmp_path / "shut"
    secret.write_text("{}")
    secret.chmod(0)
    shut.mkdir()
    for folder in (shut, tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=told_to_nobody, args=((secret, shut), answers))
    process.start()
    read, written = answers.get(), answers.get()
    process.join()
    assert read.startswith(f"{secret}: cannot be read (Permission denied)")
    assert written.startswith(f"{shut / 'a.tsv'}: cannot be written (Permission denied)")


@pytest.mark.parametrize(
    "error", [OSError("no number"), FileNotFoundError(2, "No such"), KeyError()]
)
def test_other_errors_are_left_to_others(error: Exception) -> None:
    assert in_one_line(error) is None


def test_a_folder_that_takes_files_refuses_nothing_and_keeps_nothing(tmp_path: Path) -> None:
    assert refusal(tmp_path) is None
    assert not list(tmp_path.iterdir())


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
