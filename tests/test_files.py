"""Text files: whole or not at all, read as people save them, and refused in one line."""

import codecs
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainlm_bids import bounds, files
from brainlm_bids.errors import UserError


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.tsv"
    with pytest.raises(RuntimeError), files.atomically(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        raise RuntimeError
    assert list(path.parent.iterdir()) == []
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.atomically(path) as temporary:
        temporary.write_text("half of the new")
        raise RuntimeError
    assert path.read_text() == "old"
    with files.atomically(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.name.endswith(".tsv")
    assert [p.name for p in path.parent.iterdir()] == ["table.tsv"]
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o666 & ~files._umask()


def test_tsv_says_na_and_keeps_a_float32(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    values = [np.float32(1 / 3), float("nan"), None, float("inf"), 12345.678]
    files.write_tsv(path, ["value", "text"], [values, ["a", "b\tc", "d\ne", 1, True]])
    lines = path.read_text().splitlines()
    assert lines[0] == "value\ttext"
    assert [line.split("\t")[0] for line in lines[1:]] == [
        "0.3333333",
        "n/a",
        "n/a",
        "n/a",
        "12345.68",
    ]
    assert [line.split("\t")[1] for line in lines[1:]] == ["a", "b c", "d e", "1", "True"]
    with pytest.raises(ValueError, match="lengths"):
        files.write_tsv(path, ["a", "b"], [[1], [1, 2]])


def test_series_comes_back(tmp_path: Path) -> None:
    series = np.random.default_rng(1).normal(10000, 30, (40, 424)).astype(np.float32)
    series[:, 7] = np.nan
    names = [f"p{i}" for i in range(424)]
    files.write_series(tmp_path / "series.tsv", names, series)
    read_names, read = files.read_tsv(tmp_path / "series.tsv")
    assert read_names == names
    assert read.shape == (40, 424)
    assert np.isnan(read[:, 7]).all()
    np.testing.assert_allclose(read, series, rtol=1e-6)


def test_json_has_no_nan(tmp_path: Path) -> None:
    values = {"a": np.float32(1.5), "b": [float("nan"), np.int64(3)], "c": Path("/x"), "d": (1, 2)}
    files.write_json(tmp_path / "side.json", values)
    read = json.loads((tmp_path / "side.json").read_text())
    assert read == {"a": 1.5, "b": [None, 3], "c": "/x", "d": [1, 2]}


READERS: list[Callable[[Path], Any]] = [files.read_json, files.read_tsv, files.read_rows]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("é".encode("latin-1"), "is not UTF-8 text (byte 1 is 0xe9)"),
        ("{}".encode("utf-16")[:-1], "is damaged UTF-16 text"),
        (None, "there is no such file"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line_that_names_the_file(
    tmp_path: Path, read: Callable[[Path], Any], content: bytes | None, text: str
) -> None:
    path = tmp_path / "side.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {text}")
    assert "\n" not in message


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder, not a file"):
        files.read_text(tmp_path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('{"a": 1,', "is not valid JSON (line 1, column 9: "),
        ("", "is not valid JSON"),
        ("[1, 2]", "holds no JSON object"),
        ("[" * 100_000, "is not valid JSON (nested too deeply)"),
    ],
)
def test_json_that_is_damaged(tmp_path: Path, content: str, text: str) -> None:
    path = tmp_path / "side.json"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        files.read_json(path)
    assert f"{path}: {text}" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("a\tb\n1\t2\n3\n", "rows of different lengths; was the file cut short?"),
        ("a\tb\n1\t2\t3\n", "rows of different lengths; was the file cut short?"),
    ],
)
def test_tables_that_are_cut_short(tmp_path: Path, content: str, text: str) -> None:
    path = tmp_path / "table.tsv"
    path.write_text(content)
    for read in (files.read_tsv, files.read_rows):
        with pytest.raises(UserError) as caught:
            read(path)
        assert str(caught.value) == f"{path}: {text}"


def test_words_are_no_numbers(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    for content in ("a\nx\n", ""):
        path.write_text(content)
        with pytest.raises(UserError, match=r"table\.tsv: is not a table of numbers \(.+\)"):
            files.read_tsv(path)


def test_what_spreadsheets_save_is_understood(tmp_path: Path) -> None:
    """A byte-order mark, and lines that end as Windows ends them."""
    path = tmp_path / "table.tsv"
    path.write_bytes(codecs.BOM_UTF8 + "größe\tb\r\n1\tn/a\r\n".encode())
    assert files.read_rows(path) == [{"größe": "1", "b": "n/a"}]
    names, values = files.read_tsv(path)
    assert names == ["größe", "b"]
    assert values[0, 0] == 1
    assert np.isnan(values[0, 1])
    path.write_bytes(codecs.BOM_UTF8 + b'{"a": 1}')
    assert files.read_json(path) == {"a": 1}


def test_quotes_and_rare_separators_stay_in_their_cell(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    files.write_tsv(path, ["a", "b"], [['say "x', "y\u2028z"], ["1", "2"]])
    assert [row["a"] for row in files.read_rows(path)] == ['say "x', "y\u2028z"]


def test_checksums(tmp_path: Path) -> None:
    path = files.write_text(tmp_path / "a.txt", "abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.file_sha256(path) == files.sha256("abc") == files.sha256("a", b"bc") == known
    array = np.arange(6, dtype="<i2").reshape(2, 3)
    assert files.sha256(array.T) == files.sha256(np.ascontiguousarray(array.T).data)


def test_reading_takes_the_memory_of_the_file_and_not_of_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    path.write_text('{"a": 1}')
    tracemalloc.start()
    try:
        assert files.read_json(path) == {"a": 1}
        assert files.read_bytes(path) == b'{"a": 1}'
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_a_file_that_grows_while_it_is_read_is_read_whole_up_to_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "growing.tsv"
    path.write_bytes(b"0123456789" * 3)
    monkeypatch.setattr(bounds, "check_regular", lambda path: 10)
    assert bounds.content_of(path) == b"0123456789" * 3
    assert bounds.content_of(path, 20) == b"0123456789" * 2 + b"0"  # a byte more, as a sign


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc")
def test_a_file_without_a_known_size_is_read() -> None:
    assert b"Pid:" in bounds.content_of(Path("/proc/self/status"))
