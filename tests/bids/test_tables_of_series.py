"""Series as programs, spreadsheets and scripts save them: the same numbers, or one line."""

import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from brainlm_bids import resources
from brainlm_bids.api.series import read_series
from brainlm_bids.bids.timeseries import read_timeseries
from brainlm_bids.errors import UserError

NAMES = list(resources.parcels().names)
N = len(NAMES)
Array = NDArray[np.float64]

# How columns are named: the name of parcel k.
SPELLINGS: dict[str, Callable[[int], str]] = {
    "the atlas": lambda k: NAMES[k],
    "CIFTI labels": lambda k: NAMES[k] + ("_ROI" if k < 360 else ""),
    "CONN": lambda k: f"A424.{NAMES[k]}",
    "R": lambda k: NAMES[k].replace("-", "."),
    "upper case": lambda k: f" {NAMES[k].upper()}",
    "blanks": lambda k: f"mean {NAMES[k].replace('_', ' ')} (raw)",
    "labels": lambda k: str(k + 1),
    "pandas": lambda k: str(k),
    "zeros": lambda k: f"ROI_{k + 1:03d}",
    "nilearn": lambda k: f"niftilabelsmasker{k}",
    "MATLAB": lambda k: f"Var{k + 1}",
    "R without names": lambda k: f"X{k + 1}",
    "savetxt": lambda k: f"{k + 1:.18e}",
}
WORDS = ("n/a", "NaN", "nan", "NA", "", "#N/A", ".", "-", "null", "None", "N.A.")
INDEX: dict[str, Callable[[int], str]] = {
    "": str,
    "Unnamed: 0": str,
    "time": lambda t: f"{0.735 * t:.3f}",
    "volume": lambda t: str(t + 1),
    "Time (s)": lambda t: f"{2 * t}",
}
SEPARATORS = {"tab": "\t", "comma": ",", "semicolon": ";", "blank": " "}


def _values(seed: int, n: int = 6) -> Array:
    rng = np.random.default_rng(seed)
    values = np.round(rng.normal(10_000, 40, size=(n, N)), 3)
    values[rng.random(values.shape) < 0.01] = np.nan
    values[2] = np.nan  # a censored volume
    return values


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes, Array]:
    """Name and content of a file, and the values that it holds."""
    values = _values(draw(st.integers(0, 99)))
    separator = draw(st.sampled_from(sorted(SEPARATORS)))
    spelling = draw(st.sampled_from([*SPELLINGS, None]))
    blank = separator == "blank"
    order = np.arange(N)
    if spelling is not None:
        order = np.random.default_rng(draw(st.integers(0, 99))).permutation(N)
    word = draw(st.sampled_from([one for one in WORDS if one or not blank]))
    decimal = "." if separator == "comma" else draw(st.sampled_from(".,"))

    def cell(value: float) -> str:
        return word if np.isnan(value) else f"{value:.4f}".replace(".", decimal)

    rows = [[cell(value) for value in row] for row in values[:, order]]
    header = None if spelling is None else [SPELLINGS[spelling](int(k)) for k in order]
    if header and blank:
        header = [name.strip().replace(" ", "_") for name in header]
    index = draw(st.sampled_from([*(INDEX if header else ["volume"]), None]))
    if index is not None and not (blank and index in ("", "Time (s)", "Unnamed: 0")):
        rows = [[INDEX[index](t).replace(".", decimal), *row] for t, row in enumerate(rows)]
        header = [index, *header] if header else None
    table = [*([header] if header else []), *rows]
    if draw(st.booleans()) and not blank:
        table = [[f'"{cell}"' for cell in row] for row in table]
    if draw(st.booleans()) and not blank and header:
        table = [[*row, "", ""] for row in table]  # separators at the end
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    lines = [SEPARATORS[separator].join(row) for row in table]
    empty = "" if blank else SEPARATORS[separator] * draw(st.integers(0, N))
    lines += [empty] * draw(st.integers(0, 2))
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
    suffix = draw(st.sampled_from([".tsv", ".csv", ".txt", ".dat"]))
    return f"series{suffix}", end.join([*lines, ""]).encode(encoding), values


@settings(max_examples=60, deadline=None, derandomize=True)
@given(files())
def test_every_way_to_save_a_series_gives_the_same_numbers(file: tuple[str, bytes, Array]) -> None:
    name, content, values = file
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        found = read_timeseries(path, NAMES).values
    np.testing.assert_allclose(found, values, rtol=1e-9)


def _read(tmp_path: Path, text: str, name: str = "x.tsv") -> Array:
    (tmp_path / name).write_text(text)
    return read_timeseries(tmp_path / name, NAMES).values


@pytest.mark.parametrize("spelling", ["the atlas", "CIFTI labels", "CONN"])
@pytest.mark.parametrize("n_volumes", [6, N])
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("index", [True, False])
def test_rows_that_have_the_names_of_parcels_are_turned(
    tmp_path: Path, spelling: str, n_volumes: int, header: bool, index: bool
) -> None:
    values = _values(1, n_volumes)
    order = np.random.default_rng(2).permutation(N)
    table = pd.DataFrame(values.T[order])
    table.insert(0, "name", [SPELLINGS[spelling](int(k)) for k in order])
    text = table.to_csv(sep="\t", index=index, header=header, na_rep="n/a")
    np.testing.assert_allclose(_read(tmp_path, text), values)


def test_rows_that_have_the_labels_of_parcels_are_turned_if_the_header_says_so(
    tmp_path: Path,
) -> None:
    values = _values(3)
    table = pd.DataFrame(values.T, index=np.arange(1, N + 1))
    text = table.sample(frac=1, random_state=0).to_csv(index_label="ROI", na_rep="n/a")
    np.testing.assert_allclose(_read(tmp_path, text, "x.csv"), values)
    # without a name it may number the volumes of another atlas
    with pytest.raises(UserError, match="424"):
        _read(tmp_path, table.to_csv(na_rep="n/a"), "x.csv")


def test_a_row_of_numbers_is_a_header_only_if_it_numbers_the_columns(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(5, N))
    rng = np.random.default_rng(1)

    def text(table: Array) -> str:
        buffer = io.StringIO()
        np.savetxt(buffer, table, delimiter="\t")
        return buffer.getvalue()

    for labels in (np.arange(N), np.arange(1, N + 1), rng.permutation(N) + 1):
        found = _read(tmp_path, text(np.vstack([labels, values])))
        start = int(labels.min())
        np.testing.assert_allclose(found[:, labels - start], values)
    ranks = np.array([rng.permutation(N) + 1.0 for _ in range(5)])
    ramps = np.arange(5.0 * N).reshape(5, N)
    whole = np.round(100 * values)
    for data in (values, ranks, ramps, whole):
        np.testing.assert_allclose(_read(tmp_path, text(data)), data)


def test_comments_and_names_as_savetxt_writes_them(tmp_path: Path) -> None:
    values = np.round(np.random.default_rng(0).normal(size=(5, N)), 6)
    path = tmp_path / "x.csv"
    np.savetxt(path, values[:, ::-1], delimiter=",", header=",".join(NAMES[::-1]))
    np.testing.assert_allclose(read_timeseries(path, NAMES).values, values)
    np.savetxt(path, values, delimiter=",", header="made on Tuesday\nTR 0.735")
    np.testing.assert_allclose(read_timeseries(path, NAMES).values, values)


def _table(values: Array | None = None, columns: list[str] | None = None) -> str:
    values = np.random.default_rng(0).normal(size=(6, N)) if values is None else values
    frame = pd.DataFrame(values, columns=columns)
    return frame.to_csv(sep="\t", index=False, header=columns is not None, na_rep="n/a")


VALUES = np.random.default_rng(0).normal(size=(6, N))
REFUSED = {
    "424 x 6": (_table(VALUES.T), "transpose it"),
    "424 x 424": (_table(np.random.default_rng(0).normal(size=(N, N))), "name the columns"),
    "connectivity": (_table(np.corrcoef(VALUES.T)), "functional connectivity"),
    "named connectivity": (_table(np.corrcoef(VALUES.T), NAMES), "functional connectivity"),
    "relmat": (
        pd.DataFrame(np.corrcoef(VALUES.T), NAMES, NAMES).to_csv(sep="\t", index_label="name"),
        "functional connectivity",
    ),
    "another atlas": (_table(None, [f"Schaefer_{k}" for k in range(N)]), "'Schaefer_0' is no"),
    "a column more": (
        _table(np.hstack([VALUES, VALUES[:, :1]]), [*NAMES, "global signal"]),
        "'global signal' is no parcel",
    ),
    "0 to 424": (
        _table(np.hstack([VALUES, VALUES[:, :1]]), [str(k) for k in range(N + 1)]),
        "425 columns, and they are not the labels",
    ),
    "a column less": (_table(VALUES[:, 1:], NAMES[1:]), "423 columns, and 'R_V1' is missing"),
    "label 120 less": (
        _table(VALUES[:, 1:], [str(k) for k in range(1, N + 1) if k != 120]),
        "120 is missing",
    ),
    "a column twice": (_table(None, [*NAMES[:-1], NAMES[0]]), "'R_V1' stands for more than one"),
    "two recordings": (
        _table(
            np.hstack([np.r_[0:3, 0:3][:, None], VALUES]),
            ["time", *NAMES],
        ),
        "several recordings",
    ),
    "425 without names": (_table(np.hstack([VALUES, VALUES[:, :1]])), r"shape \(6, 425\)"),
    "a word": (_table(None, NAMES).replace("n/a", "x")[:-4] + "oops\n", "'.*oops' is not a number"),
    "thousands": (
        "\t".join(NAMES) + "\n" + "\n".join(["\t".join(["10,023"] * N)] * 6),
        "decimal comma or separates thousands",
    ),
    "cut short": (_table(None, NAMES)[:-300], "was the file cut short"),
    "names alone": ("\t".join(NAMES) + "\n", "no row of values"),
    "nothing": ("\n\n", "it is empty"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_right_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    text, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as refused:
        _read(tmp_path, text)
    assert "\n" not in str(refused.value) and "x.tsv" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.mat", "writematrix"), ("a.xlsx", "as CSV"), ("a.npz", "numpy.save"), ("a.gz", "decomp")],
)
def test_other_formats_are_refused_with_what_to_do(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _read(tmp_path, "x", name)


def test_tables_of_pandas() -> None:
    values = np.random.default_rng(0).normal(size=(30, N))
    order = np.random.default_rng(1).permutation(N)
    mixed = values[:, order]
    frames = [pd.DataFrame(values), pd.DataFrame(values, columns=np.arange(1, N + 1))]
    frames += [
        pd.DataFrame(mixed, columns=[spell(int(k)) for k in order]) for spell in SPELLINGS.values()
    ]
    frames.append(pd.DataFrame(values.T, index=NAMES))
    frames.append(frames[-1].T.reset_index().rename(columns={"index": "Unnamed: 0"}))
    frames.append(pd.DataFrame(values, columns=NAMES).astype(str))
    for frame in frames:
        found = read_series(frame, tr=0.735).values
        np.testing.assert_allclose(found, values)
    stacked = frames[-2].assign(**{"Unnamed: 0": [*range(15), *range(15)]})
    with pytest.raises(ValueError, match="several recordings"):
        read_series(stacked, tr=0.735)
    for array, message in (
        (values.T, "transpose"),
        (np.corrcoef(values.T), "functional connectivity"),
        (np.random.default_rng(0).normal(size=(N, N)), "name the columns"),
    ):
        with pytest.raises(ValueError, match=message):
            read_series(array, tr=0.735)
