"""A comparison of outputs sees each number that changes, and nothing that may change."""

import gzip
import json
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest

from benchmarks import same_bytes

TABLE = "sub-01/func/sub-01_desc-denoised_timeseries.tsv"
SIDECAR = "sub-01/func/sub-01_desc-denoised_timeseries.json"
IMAGE = "sub-01/anat/sub-01_T1w.nii.gz"
ARRAYS = "sub-01/func/sub-01_tokens.npz"
TRANSFORM = "sub-01/anat/sub-01_from-T1w_xfm.h5"
FIGURE = "sub-01/figures/sub-01_motion.svg"
PAGE = "sub-01.html"
SIDE = {"Sources": ["bids::a"], "MeanFD": 0.125, "Atlas": {"Name": "A424"}, "Converged": True}


def _write(folder: Path, when: int) -> Path:
    """An output folder; `when` stands in all that may change from call to call."""
    for name in (TABLE, IMAGE, FIGURE, "logs/x"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / TABLE).write_text("V1\tkind\n0.5\tsignal\n-2\tn/a\n")
    _write_json(folder / SIDECAR, **SIDE, Here=f"file://{folder}/x", Configuration=str(when))
    _write_image(folder / IMAGE, np.arange(24.0).reshape(2, 3, 4), when)
    np.savez(folder / ARRAYS, tokens=np.array([1.0, np.nan], dtype=np.float16), axes=["a", "b"])
    with h5py.File(folder / TRANSFORM, "w") as file:
        file["TransformGroup/0/TransformParameters"] = np.arange(12.0)
        file["TransformGroup/0/TransformType"] = ["AffineTransform"]
        file["OSVersion"] = [str(when)]
    (folder / FIGURE).write_text('<svg>\n<path d="1 2"/>\n</svg>\n')
    row = f"<tr><td>1</td><td>{when}</td><td>0.125</td></tr>"
    (folder / PAGE).write_text(
        f"<style>p {{}}</style><table><tr><th>Run</th><th>Time (s)</th><th>FD</th></tr>{row}"
        f"</table><a href='{folder}'>x"
    )
    (folder / "logs" / "x").write_text(str(when))
    return folder


def _write_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(values))


def _write_image(path: Path, data: np.ndarray, when: int = 0) -> None:
    content = nib.Nifti1Image(data, np.eye(4)).to_bytes()
    path.write_bytes(gzip.compress(content, mtime=when))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return _write(tmp_path / "out", 1), _write(tmp_path / "out2", 2)


def _said(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str], *flags: str
) -> tuple[int, str]:
    code = same_bytes.main([*map(str, folders), *flags])
    return code, capsys.readouterr().out


def test_what_may_change_is_no_difference(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = _said(folders, capsys)
    assert code == 0, said
    first, *rest = said.splitlines()
    assert first.startswith("left out: folders logs") and "Configuration" in first
    assert rest == ["7 files the same, 0 differ, 0 only before, 0 only after"]


def _other_transform(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["TransformGroup/0/TransformParameters"][3] = 3.25


CHANGES = {
    TABLE: (
        lambda path: path.write_text("V1\tkind\n0.75\tsignal\n-2.5\tn/a\n"),
        "2 of 4 cells, max abs difference 0.5 (V1)",
    ),
    SIDECAR: (
        lambda path: _write_json(path, **(SIDE | {"MeanFD": 0.375}), Here=""),
        "MeanFD: 0.125 and 0.375, difference 0.25 (and 1 more)",
    ),
    IMAGE: (
        lambda path: _write_image(
            path, np.arange(24.0).reshape(2, 3, 4) + np.eye(4)[1:3, :3, None]
        ),
        "data: 8 of 24 values, max abs difference 1",
    ),
    ARRAYS: (
        lambda path: np.savez(path, tokens=np.array([1.5, np.nan], dtype=np.float16)),
        "axes is gone; tokens: 1 of 2 values, max abs difference 0.5",
    ),
    TRANSFORM: (
        _other_transform,
        "TransformGroup/0/TransformParameters: 1 of 12 values, max abs difference 0.25",
    ),
    FIGURE: (
        lambda path: path.write_text('<svg>\n<path d="1 3"/>\n</svg>\n'),
        "line 2: '<path d=\"1 2\"/>' and '<path d=\"1 3\"/>'",
    ),
    PAGE: (
        lambda path: path.write_text(path.read_text().replace("0.125", "0.126")),
        "line 2: '1 | 0.125' and '1 | 0.126'",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_number_that_changes_is_seen(
    name: str, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    change, expected = CHANGES[name]
    change(folders[1] / name)
    code, said = _said(folders, capsys)
    lines = [line for line in said.splitlines() if line.startswith("differs: ")]
    assert code == 1 and lines == [f"differs: {name}: {expected}"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"a": 1}, {"a": True}),
        ({"a": [1, 2]}, {"a": [1, 2, 3]}),
        ({"a": None}, {"a": 0}),
        ({"a": {"b": 1}}, {"a": {}}),
        ({"a": "x"}, {"a": "y"}),
    ],
)
def test_json_values_that_differ(before: dict, after: dict) -> None:
    one, other = (json.dumps(value).encode() for value in (before, after))
    assert same_bytes.compare_json("x.json", one, other, same_bytes.Rules()).difference
    assert not same_bytes.compare_json("x.json", b'{"a": 1}', b'{"a": 1.0}', same_bytes.Rules())[0]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (b"a\tb\n1\tx\n3\tn/a\n", "1 of 4 cells; line 3, b: 'z' and 'n/a'"),
        (b"a\tb\n1\tx\n", "2 and 1 rows"),
        (b"b\ta\nx\t1\nz\t3\n", "line 1: 'a\\tb' and 'b\\ta'"),
        (b"a\tb\n1\tx\n3\tz", "3 lines"),
    ],
)
def test_tables_that_differ(after: bytes, expected: str) -> None:
    found = same_bytes.compare_table("x.tsv", b"a\tb\n1\tx\n3\tz\n", after, same_bytes.Rules())
    assert expected in found.difference


def test_what_was_added_is_listed_and_what_is_gone_is_a_difference(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = folders
    (after / "new.tsv").write_text("a\n")
    (after / TABLE).write_text("V1\tV2\tkind\n0.5\t0\tsignal\n-2\t0\tn/a\n")
    said = json.loads((after / SIDECAR).read_text())
    _write_json(after / SIDECAR, **said | {"Censored": 0, "Atlas": {"Name": "A424", "New": 1}})
    code, text = _said(folders, capsys)
    assert code == 0
    assert text.splitlines()[1:4] == [
        "only after: new.tsv",
        f"added: {SIDECAR}: Censored, Atlas.New",
        f"added: {TABLE}: V2",
    ]
    (before / "old.tsv").write_text("a\n")
    code, text = _said(folders, capsys)
    assert code == 1 and "only before: old.tsv" in text


def test_names_that_were_changed_on_purpose(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    after = folders[1]
    name = TABLE.replace("desc-denoised", "desc-clean")
    (after / name).write_text("Visual1\tkind\n0.5\tsignal\n-2\tn/a\n")
    (after / TABLE).unlink()
    (after / SIDECAR).rename(after / name.replace(".tsv", ".json"))
    for folder, label in zip(folders, ("denoised", "clean"), strict=True):
        (folder / PAGE).write_text(f"<p>see desc-{label}_timeseries")
    renamed, columns = tmp_path / "renamed.tsv", tmp_path / "columns.tsv"
    renamed.write_text("# series\n\ndesc-denoised_(timeseries)\tdesc-clean_\\1\n")
    columns.write_text("_timeseries\\.tsv$\tV(\\d)\tVisual\\1\n")
    code, _ = _said(folders, capsys)
    assert code == 1
    code, text = _said(folders, capsys, "--renamed", str(renamed), "--columns", str(columns))
    assert code == 0, text


def test_a_wrong_call_is_usage(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = tmp_path / "two.tsv"
    two.write_text(".*\tone\n")
    for flags in (["--renamed", str(two)], ["--columns", str(two)]):
        with pytest.raises(SystemExit, match="2"):
            _said(folders, capsys, *flags)
    with pytest.raises(SystemExit, match="2"):
        _said((folders[0], tmp_path / "missing"), capsys)


def test_a_file_that_cannot_be_read_differs(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (folders[1] / IMAGE).write_bytes(b"\x1f\x8bnothing")
    code, said = _said(folders, capsys)
    assert code == 1 and f"differs: {IMAGE}: cannot be compared" in said
