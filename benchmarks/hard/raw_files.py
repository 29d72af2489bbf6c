"""Raw data: files that are missing, damaged or of another kind, and names that are not valid."""

import json
import shutil
from pathlib import Path

import numpy as np

from benchmarks.hard.benign import (
    COMMON,
    TR,
    add_bold,
    add_person,
    benign_bold,
    benign_t1w,
    bold_path,
    changed,
    raw_dataset,
    values,
)
from benchmarks.hard.case import REFUSED, RIGHT, WARNED, Batch, Case


def _bytes(task: str, content: bytes):  # type: ignore[no-untyped-def]
    def build(folder: Path) -> None:
        add_bold(folder, task).write_bytes(content)

    return build


def _dangling(path: Path) -> None:
    """A link as git-annex leaves it for a file that was not fetched."""
    path.unlink(missing_ok=True)
    (path.parents[2] / ".git" / "annex").mkdir(parents=True, exist_ok=True)
    path.symlink_to("../../.git/annex/objects/Xx/Yy/MD5E-s1--0/MD5E-s1--0.nii.gz")


def _bold_dangling(folder: Path) -> None:
    _dangling(add_bold(folder, "notfetched"))


def _truncated(folder: Path) -> None:
    path = add_bold(folder, "truncated")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _cut_gzip_end(folder: Path) -> None:
    path = add_bold(folder, "nochecksum")
    path.write_bytes(path.read_bytes()[:-8])


def _both_forms(folder: Path) -> None:
    add_bold(folder, "twoforms")
    benign_bold(folder).to_filename(str(bold_path(folder, "twoforms")).removesuffix(".gz"))


def _flat(folder: Path) -> None:
    image = benign_bold(folder)
    add_bold(folder, "oneVolume", changed(image, values(image)[..., 0]))


def _short(folder: Path) -> None:
    image = benign_bold(folder)
    add_bold(folder, "tenVolumes", changed(image, values(image)[..., :10]))


def _no_tr(folder: Path) -> None:
    image = benign_bold(folder)
    new = changed(image, values(image))
    new.header.set_zooms((*image.header.get_zooms()[:3], 0.0))
    add_bold(folder, "noTR", new, sidecar={"TaskName": "noTR"})


def _constant(folder: Path) -> None:
    image = benign_bold(folder)
    add_bold(folder, "constant", changed(image, np.full(image.shape, 100, np.float32)))


def _noise(folder: Path) -> None:
    image = benign_bold(folder)
    noise = np.random.default_rng(0).normal(100, 10, image.shape).astype(np.float32)
    add_bold(folder, "noise", changed(image, noise))


def _sidecar(task: str, content: bytes):  # type: ignore[no-untyped-def]
    return lambda folder: add_bold(folder, task, sidecar=content) and None


_JSON = json.dumps(
    {"TaskName": "x", "RepetitionTime": TR, "Institution": "Zürich"}, ensure_ascii=False
)


def _renamed(task: str):  # type: ignore[no-untyped-def]
    return lambda folder: add_bold(folder, task) and None


def _no_task(folder: Path) -> None:
    path = add_bold(folder, "gone")
    for one in (path, path.with_name(path.name.replace(".nii.gz", ".json"))):
        one.rename(one.with_name(one.name.replace("_task-gone", "_acq-noTask")))


def _ignored(folder: Path) -> None:
    add_bold(folder, "ignored")
    (folder / "raw" / ".bidsignore").write_text("*_task-ignored_*\n")


def _single_echoes(folder: Path) -> None:
    for echo in (1, 2):
        path = add_bold(folder, "echoes")
        for one in (path, path.with_name(path.name.replace(".nii.gz", ".json"))):
            one.rename(one.with_name(one.name.replace("_bold", f"_echo-{echo}_bold")))
        sidecar = path.with_name(path.name.replace("_bold.nii.gz", f"_echo-{echo}_bold.json"))
        values = {"TaskName": "echoes", "RepetitionTime": TR, "EchoTime": 0.015 * echo}
        sidecar.write_text(json.dumps(values))


def _t1w(label: str, damage):  # type: ignore[no-untyped-def]
    def build(folder: Path) -> None:
        add_person(folder, label, None)
        damage(folder / "raw" / f"sub-{label}" / "anat" / f"sub-{label}_T1w.nii.gz")

    return build


def _half(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


_BAD = (REFUSED,)
FILES = (
    Case("notfetched", "BOLD that git-annex did not fetch", _BAD, _bold_dangling),
    Case("truncated", "BOLD cut in its middle", _BAD, _truncated),
    Case(
        "nochecksum", "BOLD without its last eight bytes", (REFUSED, RIGHT, WARNED), _cut_gzip_end
    ),
    Case("empty", "BOLD of 0 bytes", _BAD, _bytes("empty", b"")),
    Case("text", "a text file named .nii.gz", _BAD, _bytes("text", b"<html>403</html>\n" * 40)),
    Case("twoforms", "the same run as .nii and .nii.gz", (REFUSED, RIGHT, WARNED), _both_forms),
    Case("oneVolume", "BOLD of one volume (3-D)", _BAD, _flat),
    Case("tenVolumes", "BOLD of ten volumes", _BAD, _short, says="volumes"),
    Case(
        "noTR", "no repetition time anywhere", _BAD, _no_tr, says="repetitiontime|repetition time"
    ),
    Case("constant", "BOLD with one value", _BAD, _constant),
    Case("noise", "BOLD of noise without a head", _BAD, _noise, says="brain"),
    Case("cutJson", "sidecar cut short", _BAD, _sidecar("cutJson", b'{"RepetitionTime": 2')),
    Case(
        "bomJson",
        "sidecar with a byte-order mark",
        (RIGHT,),
        _sidecar("bomJson", b"\xef\xbb\xbf" + _JSON.encode()),
    ),
    Case(
        "latinJson",
        "sidecar in Latin-1",
        (RIGHT, WARNED, REFUSED),
        _sidecar("latinJson", _JSON.encode("latin-1")),
    ),
    Case("listJson", "sidecar that is a list", _BAD, _sidecar("listJson", b"[2.0]")),
    Case(
        "wordTR",
        'RepetitionTime "2 s"',
        (REFUSED, RIGHT),
        _sidecar("wordTR", b'{"RepetitionTime": "2 s", "TaskName": "x"}'),
    ),
    Case("n-back", "task-n-back, a hyphen in a label", (REFUSED, RIGHT), _renamed("n-back")),
    Case(
        "rest_eyesopen",
        "task-rest_eyesopen, a word that is no entity",
        (REFUSED, RIGHT),
        _renamed("rest_eyesopen"),
    ),
    Case("noTask", "no task in the name", (REFUSED, RIGHT), _no_task),
    Case("ignored", "a run that .bidsignore names", (REFUSED, RIGHT), _ignored),
    Case("echoes", "two echoes that are the same image", (REFUSED, RIGHT, WARNED), _single_echoes),
    Case("t1gone", "T1w that git-annex did not fetch", _BAD, _t1w("t1gone", _dangling), says="t1w"),
    Case("t1half", "T1w cut in its middle", _BAD, _t1w("t1half", _half), says="t1w"),
    Case("t1empty", "T1w of 0 bytes", _BAD, _t1w("t1empty", _empty), says="t1w"),
)


def _prepare(folder: Path) -> None:
    raw_dataset(folder)


def _copy_in_subfolder(folder: Path) -> None:
    """A copy of a run in a folder of its own, as people keep what they once tried."""
    path = add_bold(folder, "copied")
    there = path.parent / "old"
    there.mkdir()
    shutil.copy(path, there)
    shutil.copy(benign_t1w(folder), benign_t1w(folder).parent / "sub-01_copy_T1w.nii.gz")


LOOSE = Batch(
    "raw, --skip-bids-validation",
    "Names that are not valid BIDS are taken along; a dry run.",
    _prepare,
    lambda folder: [
        *(str(folder / "raw"), str(folder / "out"), "participant", "-w", str(folder / "work")),
        *(*COMMON, "--skip-bids-validation", "--dry-run"),
    ],
    (
        Case(
            "copied", "a copy of a run in a subfolder", (REFUSED, RIGHT, WARNED), _copy_in_subfolder
        ),
        Case("n-back", "task-n-back", (RIGHT, REFUSED), _renamed("n-back")),
        Case("rest_eyesopen", "task-rest_eyesopen", (RIGHT, REFUSED), _renamed("rest_eyesopen")),
    ),
    dry=True,
)
