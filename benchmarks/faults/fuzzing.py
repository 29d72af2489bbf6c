"""Parsers are given what hypothesis makes of good files: each refuses in one line, or reads.

Whatever else is raised is a crash. Inputs come in batches, each with its own seed, so that a batch
that fails can be repeated.
"""

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from benchmarks.faults import checkpoint_bombs as weights
from benchmarks.faults import hostile, image_bombs
from benchmarks.faults.fault import Fault, Trial

BATCH = 50  # inputs
LEAST = "no crash: refused in one line, or read"
Strategy = st.SearchStrategy[Any]


class Parser(NamedTuple):
    """What is fuzzed: inputs, and a function of a folder and an input."""

    name: str
    about: str
    inputs: Callable[[], Strategy]
    read: Callable[[Path, Any], object]


# --- inputs ----------------------------------------------------------------------------------


def changed(content: bytes, first: int | None = None) -> Strategy:
    """A good file with some bytes changed (of its first ones), removed, or added."""
    end = min(len(content), first or len(content))
    edit = st.tuples(st.integers(0, end - 1), st.integers(0, 4), st.binary(max_size=8))
    cut = st.one_of(st.none(), st.integers(0, len(content)))

    def apply(edits: list[tuple[int, int, bytes]], cut: int | None) -> bytes:
        new = bytearray(content)
        for place, removed, added in edits:
            # mostly in place, so that what follows keeps its meaning
            new[place : place + (len(added) if removed < 4 else 0)] = added
        return bytes(new[:cut])

    return st.builds(apply, st.lists(edit, min_size=1, max_size=4), cut)


_WORDS = st.sampled_from(["sub-01", "n/a", "", "1", "-1e308", "NaN", "0,5", '"', "#", "\0", "é"])
_CELL = st.one_of(_WORDS, st.text(max_size=8), st.floats().map(str))


def tables() -> Strategy:
    """Tables of odd cells, separators, line ends and encodings; and damaged good ones."""
    rows = st.lists(st.lists(_CELL, max_size=5), max_size=6)
    text = st.builds(
        lambda rows, mark, end: end.join(mark.join(row) for row in rows),
        rows,
        st.sampled_from(["\t", ",", ";", " "]),
        st.sampled_from(["\n", "\r\n", "\r"]),
    )
    headed = text.map(lambda text: f"participant_id\tage\tsite\n{text}")
    encoded = st.builds(
        lambda text, code: text.encode(code, errors="replace"),
        st.one_of(text, headed),
        st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]),
    )
    return st.one_of(encoded, changed(b"participant_id\tage\nsub-01\t20\nsub-02\t30\n"))


_LEAF = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
    st.sampled_from(["j-", "i", "2.0", "../../etc/passwd", "bids::x", "bids:a:sub-01/b"]),
)
_VALUE = st.recursive(
    _LEAF,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
_FIELDS = (
    *("RepetitionTime", "EchoTime", "SliceTiming", "PhaseEncodingDirection", "IntendedFor"),
    *("TotalReadoutTime", "EffectiveEchoSpacing", "B0FieldIdentifier", "B0FieldSource"),
    *("VolumeTiming", "StartTime", "SamplingFrequency", "SliceEncodingDirection", "Units"),
)


def sidecars() -> Strategy:
    """JSON files of odd values under the fields that are read; and damaged good ones."""
    made = st.dictionaries(st.sampled_from(_FIELDS), _VALUE, max_size=8)
    good = json.dumps({"RepetitionTime": 2.0, "SliceTiming": [0, 1], "IntendedFor": ["a"]})
    return st.one_of(
        made.map(lambda values: json.dumps(values).encode()), changed(good.encode()), st.binary()
    )


def settings_files() -> Strategy:
    """TOML files that set options to odd values; and damaged good ones."""
    import tomli_w

    from brainlm_bids.settings import TABLE

    leaf = st.one_of(
        *(st.booleans(), st.integers(-(2**62), 2**62), st.floats()),
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=10),
    )
    values = st.one_of(leaf, st.lists(leaf, max_size=3))
    made = st.dictionaries(st.sampled_from(sorted(TABLE)), values, max_size=4)
    good = b'high_pass = 100\nmodel = ["none"]\nparticipant_label = ["01"]\n'
    return st.one_of(made.map(lambda table: tomli_w.dumps(table).encode()), changed(good))


def headers() -> Strategy:
    """Images with changed headers, plain or compressed."""
    content = image_bombs.scan(3, (8, 8, 8))
    return st.tuples(st.booleans(), changed(content, 352))


@st.composite
def checkpoints(draw: st.DrawFn) -> tuple[str, bytes]:
    """One file of a checkpoint, changed: its configuration or its weights, in both formats."""
    name = draw(st.sampled_from(["config.json", "model.safetensors", "pytorch_model.bin"]))
    content = _good()[name]
    if name == "config.json" and draw(st.booleans()):
        values = json.loads(content)
        key = draw(st.sampled_from(sorted(values)))
        return name, json.dumps(values | {key: draw(_VALUE)}).encode()
    return name, draw(changed(content, 4096 if draw(st.booleans()) else None))


_FILES: dict[str, bytes] = {}


def _good() -> dict[str, bytes]:
    if not _FILES:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            one = weights.safetensors(Path(folder) / "a")
            two = weights.torch_file(Path(folder) / "b", lambda state: state)
            paths = [one / "config.json", one / "model.safetensors", two / "pytorch_model.bin"]
            _FILES.update({path.name: path.read_bytes() for path in paths})
    return _FILES


# --- readers ---------------------------------------------------------------------------------


def read_name(_folder: Path, text: str) -> None:
    """Names taken apart, and paths that sidecars name."""
    from brainlm_bids.bids.intended import exists, intended_path, is_same_run
    from brainlm_bids.bids.names import alphanumeric, parse, sidecar_of, why_unusable
    from brainlm_bids.bids.timeseries import stem_of

    name = parse(text)
    _ = name.entities, name.source, name.stem, name.bare, alphanumeric(text)
    why_unusable(name.source)
    path = intended_path(text, "sub-01")
    is_same_run(path, text)
    if "\0" not in text:
        exists(path, Path("/nowhere"))
        stem_of(Path(text))
    if text.strip("/.") and "/" not in text:
        sidecar_of(Path(text))


def _written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def read_table(folder: Path, content: bytes) -> None:
    """A table by each of its readers."""
    path = _written(folder, "sub-01_task-rest.tsv", content)
    for read in (
        hostile.read_table,
        hostile.read_numbers,
        hostile.read_people,
        hostile.read_series,
    ):
        _refused_or_read(read, path)


def read_sidecar(folder: Path, content: bytes) -> None:
    """A sidecar, and what is made of its fields."""
    from brainlm_bids.bids.headers import metadata_problem
    from brainlm_bids.bids.intended import intended_paths, labels
    from brainlm_bids.bids.readout import phase_encoding_direction, total_readout_time
    from brainlm_bids.bids.slices import slice_timing
    from brainlm_bids.files import read_json

    path = _written(folder, "sub-01_task-rest_bold.json", content)
    metadata = read_json(path)
    metadata_problem(path, metadata)
    intended_paths(metadata, "sub-01")
    labels(metadata.get("B0FieldSource"))
    direction, _ = phase_encoding_direction(metadata)
    total_readout_time(metadata, (64, 64, 30, 100), direction or "j", None)
    slice_timing(path.name, metadata, (64, 64, 30, 100))


def read_settings(folder: Path, content: bytes) -> None:
    """A file of settings."""
    hostile.read_settings(_written(folder, "a.toml", content))


def read_image(folder: Path, image: tuple[bool, bytes]) -> None:
    """An image, in planning and in a node."""
    import gzip

    packed, content = image
    content = gzip.compress(content, 1) if packed else content
    path = _written(folder, f"sub-01_task-a_bold.nii{'.gz' if packed else ''}", content)
    _refused_or_read(hostile.plan_image, path)
    _refused_or_read(hostile.read_image, path)


def read_checkpoint(folder: Path, file: tuple[str, bytes]) -> None:
    """A checkpoint, one file of which is changed."""
    name, content = file
    files = {k: v for k, v in _good().items() if k in ("config.json", name)}
    if name == "config.json":
        files["model.safetensors"] = _good()["model.safetensors"]
    for known in _good():
        (folder / known).unlink(missing_ok=True)
    for known, good in (files | {name: content}).items():
        (folder / known).write_bytes(good)
    hostile.read_weights(folder)


def _refused_or_read(read: Callable[[Path], object], path: Path) -> None:
    from brainlm_bids.errors import UserError

    try:
        read(path)
    except UserError as error:
        assert str(error) and "\n" not in str(error), repr(str(error))


PARSERS = (
    Parser(
        "names",
        "names of files, entries of `IntendedFor`",
        lambda: st.one_of(
            st.text(),
            st.lists(
                st.sampled_from(["sub-01", "task-", "-", "_", ".", "..", "/", "bold", ".nii.gz"])
            ).map("".join),
        ),
        read_name,
    ),
    Parser("tables", "TSV and CSV by four readers", tables, read_table),
    Parser("json", "sidecars, and what is made of their fields", sidecars, read_sidecar),
    Parser("toml", "files of settings", settings_files, read_settings),
    Parser("nifti", "headers of NIfTI, plain and compressed", headers, read_image),
    Parser(
        "checkpoints",
        "configurations, `model.safetensors` and `pytorch_model.bin`",
        checkpoints,
        read_checkpoint,
    ),
)


# --- batches ---------------------------------------------------------------------------------


def batch(parser: Parser, folder: Path, number: int) -> Trial:
    """One batch of inputs; what crashed, if something did."""
    last: list[Any] = []

    @seed(number)
    @settings(
        max_examples=BATCH,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(parser.inputs())
    def run(value: Any) -> None:
        last[:] = [value]
        _refused_or_read(partial(_swapped, parser.read, value), folder)

    started = time.monotonic()
    try:
        run()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        first = (str(error).splitlines() or [""])[0]
        told = f"batch {number}: {type(error).__name__}: {first}; the input was {last[0]!r:.300}"
        return Trial(False, told, time.monotonic() - started)
    return Trial(True, "", time.monotonic() - started)


def _swapped(read: Callable[[Path, Any], object], value: Any, folder: Path) -> None:
    read(folder, value)


def _fuzzed(parser: Parser, folder: Path, seconds: float) -> Sequence[Trial]:
    """Batches for so many seconds."""
    hostile.warm()
    trials: list[Trial] = []
    until = time.monotonic() + seconds
    while not trials or time.monotonic() < until:
        trials.append(batch(parser, folder, len(trials)))
    return trials


FAULTS = tuple(
    Fault(
        f"fuzzing/{parser.name}",
        f"{parser.about}, in batches of {BATCH}",
        LEAST,
        partial(_fuzzed, parser),
    )
    for parser in PARSERS
)
