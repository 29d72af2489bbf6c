"""Hostile files, each given to the function of the program that reads its kind."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.faults import checkpoint_bombs as weights
from benchmarks.faults import image_bombs as images
from benchmarks.faults.fault import Fault, Trial
from benchmarks.faults.measure import MOST_MEGABYTES, MOST_SECONDS, in_own_process

REFUSED = f"refused in one line, within {MOST_SECONDS:g} s and {MOST_MEGABYTES:g} MB"
HARMLESS = f"refused or harmless, within {MOST_SECONDS:g} s and {MOST_MEGABYTES:g} MB"
GB, TB = 10**9, 10**12
Make = Callable[[Path], Path]
Read = Callable[[Path], object]


class Hostile(NamedTuple):
    """Files of one kind, what reads them, and whether that has to refuse them."""

    name: str
    about: str
    makes: Sequence[Make]
    reads: Sequence[Read]
    must_refuse: bool = True


# --- readers of the program ------------------------------------------------------------------


def plan_image(path: Path) -> None:
    """What planning does with a BOLD image."""
    from brainlm_bids.bids.headers import look_at_image
    from brainlm_bids.errors import UserError
    from brainlm_bids.files import check_readable

    check_readable(path)
    look = look_at_image(path, 2.0)
    if look.problem or look.skip:
        raise UserError(look.problem or look.skip or "")


def read_image(path: Path) -> None:
    """What a node does with an image."""
    from brainlm_bids.interfaces.images import load_image

    load_image(str(path))


def read_sidecar(path: Path) -> None:
    """A JSON file of the data set."""
    from brainlm_bids.files import read_json, write_json

    write_json(path.with_name("copy.json"), read_json(path))


def read_description(path: Path) -> None:
    """The description of a data set, which is copied into that of the outputs."""
    from brainlm_bids.bids.dataset import read_description, write_dataset_files

    folder = path.parent / f"{path.name}-data"
    folder.mkdir()
    path.rename(folder / "dataset_description.json")
    read_description(folder)
    write_dataset_files(path.parent / f"{path.name}-out", folder, {})


def read_table(path: Path) -> None:
    """A table of words, such as confounds and events."""
    from brainlm_bids.files import read_rows

    read_rows(path)


def read_numbers(path: Path) -> None:
    """A table of numbers, such as a series that was computed before."""
    from brainlm_bids.files import read_tsv

    read_tsv(path)


def read_people(path: Path) -> None:
    """A table of participants."""
    from brainlm_bids.bids.participants import read_variables

    read_variables(None, path, ["sub-01_task-rest", "sub-02_task-rest"])


def read_series(path: Path) -> None:
    """A parcel series that was made elsewhere."""
    from brainlm_bids.bids.timeseries import read_timeseries
    from brainlm_bids.resources import parcels

    read_timeseries(path, parcels().names)


def read_settings(path: Path) -> None:
    """A file of settings."""
    from brainlm_bids.settings import read_toml

    read_toml(path)


def read_filters(path: Path) -> None:
    """A file of filters."""
    from brainlm_bids.bids.selection import read_filters

    read_filters(path)


def read_plugin(path: Path) -> None:
    """A file that names a plugin of Nipype."""
    from brainlm_bids.app.plugins import read_plugin_file

    read_plugin_file(path)


def read_weights(path: Path) -> None:
    """A checkpoint."""
    from brainlm_bids.model.checkpoint import load_model

    try:
        load_model(path, seed=0)
    finally:
        if (path / "ran").exists():
            raise AssertionError("code of the file was run")


# --- what is made ----------------------------------------------------------------------------


def _file(name: str, content: bytes) -> Make:
    return lambda folder: images.plain(folder / name, content)


def _both(make: Callable[[], bytes]) -> list[Make]:
    """An image as it is, and compressed."""
    return [
        lambda folder: images.plain(folder / "sub-01_task-a_bold.nii", make()),
        lambda folder: images.packed(folder / "sub-01_task-b_bold.nii.gz", make()),
    ]


def _in_field(name: str, *values: float) -> Callable[[], bytes]:
    return lambda: images.with_field(images.scan(), name, *values)


def _every(makes: Sequence[Callable[[], bytes]]) -> list[Make]:
    return [one for make in makes for one in _both(make)]


def _bomb(start: Callable[[], bytes], n_bytes: int) -> Make:
    return lambda folder: images.zeros(folder / "sub-01_task-a_bold.nii.gz", start(), n_bytes)


def _sparse(name: str, start: bytes, n_bytes: int) -> Make:
    return lambda folder: images.sparse(folder / name, start, n_bytes)


def _pipe(name: str) -> Make:
    def make(folder: Path) -> Path:
        os.mkfifo(folder / name)
        return folder / name

    return make


def _link(name: str, target: str) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).symlink_to(target)
        return folder / name

    return make


def _npy(shape: tuple[int, ...]) -> Make:
    def make(folder: Path) -> Path:
        with (folder / "sub-01.npy").open("wb") as stream:
            head = {"descr": "<f8", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, head)
            stream.write(bytes(4096))
        return folder / "sub-01.npy"

    return make


def _npz(folder: Path) -> Path:
    np.savez_compressed(folder / "made.npz", np.zeros((60 * images.MIB,)))
    return (folder / "made.npz").rename(folder / "sub-01.npy")


def _objects(folder: Path) -> Path:
    array = np.array([weights.Payload(folder / "ran")], dtype=object)
    np.save(folder / "sub-01.npy", array, allow_pickle=True)
    return folder / "sub-01.npy"


def _named(path: Path, make: Callable[[Path], Path]) -> Path:
    return make(path / "model")


def _model(make: Callable[..., Path], *arguments: object, **options: object) -> Make:
    return lambda folder: make(folder / "model", *arguments, **options)


_NAN, _INF = float("nan"), float("inf")
_NUMBERS = b"[" + b"1," * 3_000_000 + b"1]"
_WIDE = b"\t".join(b"c%d" % k for k in range(1_000_000))
_WIDE_VALUES = b"\t".join([b"1"] * 1_000_000)
_PEOPLE = "participant_id\tage\tsite\nsub-01\t20\tA\nsub-02\t30\tB\n"
_TEXTS: list[Make] = [
    _file("bom.tsv", _PEOPLE.encode("utf-8-sig")),
    _file("utf16.tsv", _PEOPLE.encode("utf-16")),
    _file("crlf.tsv", _PEOPLE.replace("\n", "\r\n").encode()),
    _file("nul.tsv", _PEOPLE.replace("A", "A\0").encode()),
    _file("latin1.tsv", _PEOPLE.replace("A", "\xc4").encode("latin-1")),
    _file("html.tsv", _PEOPLE.replace("A", "<script>alert(1)</script>").encode()),
    _file("long.tsv", _PEOPLE.replace("A", "A" * 300_000).encode()),
    _file("lone.tsv", _PEOPLE.replace("\n", "\r").encode()),
]

ROWS = (
    Hostile(
        "header-terabytes",
        "NIfTI headers that claim up to 10²⁴ bytes, plain, compressed, NIfTI-2",
        [
            *_both(lambda: images.claiming(32767, 32767, 32767, 32767)),
            *_both(lambda: images.claiming(32767)),
            *_both(lambda: images.nifti2(10**6, 10**6, 10**6, 10**6)),
            _sparse("sub-01_task-c_bold.nii", images.claiming(4000, 1000, 1000, 1500), 13 * TB),
        ],
        [plan_image, read_image],
    ),
    Hostile(
        "header-more-than-file",
        "a header that claims a tenth more volumes than the file holds, and a file cut in its "
        "middle",
        [
            _both(lambda: images.claiming(27))[0],
            _both(lambda: images.scan()[:100_000])[0],
            _both(lambda: images.scan()[:200])[0],
        ],
        [plan_image, read_image],
    ),
    Hostile(
        "header-more-than-stream",
        "the same, compressed: found when the file is read, before memory is taken for it",
        [_both(lambda: images.claiming(27))[1], _both(lambda: images.scan()[:100_000])[1]],
        [read_image],
    ),
    Hostile(
        "header-fields",
        "negative and zero dimensions, seven dimensions, values that begin beyond the file, "
        "before it, at NaN; unknown types; extensions longer than the file, negative, endless",
        _every(
            [
                _in_field("dim", 4, -40, 40, 24, 24, 1, 1, 1),
                _in_field("dim", 4, 40, 40, 0, 24, 1, 1, 1),
                _in_field("dim", 7, 40, 40, 24, 24, 3000, 3000, 3000),
                _in_field("dim", 9, 40, 40, 24, 24, 1, 1, 1),
                *(_in_field("vox_offset", value) for value in (1e30, _NAN, _INF, -352.0, 5e9)),
                _in_field("datatype", 77),
                _in_field("datatype", 2048),
                *(
                    partial(images.with_extension, *both)
                    for both in ((2**31 - 1, 352e3), (-5, 352e3), (0, 352e3), (64, 0.0))
                ),
            ]
        ),
        [plan_image, read_image],
    ),
    Hostile(
        "header-numbers",
        "voxel sizes of NaN, of zero and below, scale factors of NaN, infinity and zero",
        _every(
            [
                _in_field("pixdim", 1, _NAN, 4, 4, 2, 0, 0, 0),
                _in_field("pixdim", _NAN, 0, 0, 0, 0, 0, 0, 0),
                _in_field("pixdim", 1, -4, -4, -4, -2, 0, 0, 0),
                *(_in_field("scl_slope", value) for value in (_NAN, _INF, 0.0)),
                *(_in_field("scl_inter", value) for value in (_NAN, _INF)),
            ]
        ),
        [plan_image, read_image],
        must_refuse=False,
    ),
    Hostile(
        "gzip-bomb",
        "a .nii.gz of zeros: 100 GB that the header claims, 30 GB behind a small image, 10 GB "
        "of an extension",
        [
            _bomb(lambda: images.claiming(32767, 100, 100, 160)[:352], 10 * GB),
            _bomb(images.scan, 30 * GB),
            _bomb(lambda: images.with_extension(2**31 - 1, 2e9)[:360], 10 * GB),
        ],
        [read_image],
    ),
    Hostile(
        "no-file",
        "a pipe, an endless device, links in a circle, a folder in place of an image, a "
        "sidecar or a table",
        [
            make
            for name in ("sub-01_task-a_bold.nii", "sub-01_task-a_bold.nii.gz")
            for make in (
                _pipe(name),
                _link(name, "/dev/zero"),
                _link(name, name),
                _link(name, "."),
            )
        ],
        [plan_image, read_image, read_sidecar, read_table, read_people, read_numbers],
    ),
    Hostile(
        "json",
        "1 GB, three million values, 100,000 brackets, a number of 100,000 digits, no Unicode",
        [
            _sparse("a.json", b'{"a": 1', GB),
            _file("b.json", b'{"a": ' + _NUMBERS + b"}"),
            _file("c.json", b'{"a": ' + b"[" * 100_000),
            _file("d.json", b'{"a": ' + b"9" * 100_000 + b"}"),
            _file("e.json", b'{"a": "\xff"}'),
            _file("f.json", b'["a"]'),
            _file("g.json", b'{"a": "' + b"a" * 30_000_000),
        ],
        [read_sidecar, read_filters],
    ),
    Hostile(
        "json-odd",
        "halves of characters, NUL, HTML, names twice, infinity, other types than expected",
        [
            _file("a.json", b'{"Name": "\\ud800", "DatasetDOI": "\\udfff"}'),
            _file("b.json", b'{"Name": "a\\u0000b<script>", "GeneratedBy": {"Name": 1}}'),
            _file("c.json", b'{"Name": [1e999, NaN], "Name": {"a": -Infinity}}'),
            _file("d.json", '{"Name": "x"}'.encode("utf-16")),
        ],
        [read_description],
        must_refuse=False,
    ),
    Hostile(
        "tsv-columns",
        "a million columns",
        [_file("a.tsv", _WIDE + b"\n" + _WIDE_VALUES + b"\n")],
        [read_table, read_numbers, read_people, read_series],
    ),
    Hostile(
        "tsv-terabyte",
        "a file of 1 TB that takes no place on the disk",
        [_sparse("sub-01.tsv", _PEOPLE.encode(), TB)],
        [read_table, read_numbers, read_people, read_series],
    ),
    Hostile(
        "tsv-text",
        "UTF-16, byte-order mark, CRLF, CR, NUL, Latin-1, HTML, a cell of 300,000 characters",
        _TEXTS,
        [read_people, read_table],
        must_refuse=False,
    ),
    Hostile(
        "npy",
        "arrays that claim terabytes, hold Python objects, or are a .npz of zeros",
        [_npy((10**12, 424)), _npy((10**9, 10**9)), _npz, _objects],
        [read_series],
    ),
    Hostile(
        "settings",
        "TOML and YAML of 1 GB, 100,000 brackets, aliases that multiply, no UTF-8",
        [
            _sparse("a.toml", b"a = 1\n", GB),
            _file("b.toml", b"a = " + b"[" * 100_000),
            _file("c.toml", b"a = '\xff'"),
            _file("d.toml", b"nprocs = " + b"9" * 10_000),
            _pipe("e.toml"),
            _file("f.toml", b"plugin: " + b"[" * 100_000),
            _file("g.toml", b"plugin: !!python/object/apply:os.system ['touch ran']"),
            _file("h.toml", b"a: &a [x,x]\n" + b"b: &a [*a,*a,*a,*a]\n" * 50),
        ],
        [read_settings, read_plugin],
    ),
    Hostile(
        "checkpoint-code",
        "weights that run a command when they are unpickled, as a zip file of torch and as a "
        "plain pickle",
        [_model(weights.pickled, zipped=True), _model(weights.pickled, zipped=False)],
        [read_weights],
    ),
    Hostile(
        "checkpoint-bomb",
        "a record of weights that expands to 256 MB, a header of 100 MB or 1 EB, a tensor of 4 TB "
        "stored or repeated, a width of 10¹², 10⁹ layers",
        [
            _model(weights.zip_bomb, 256 * images.MIB),
            _model(weights.huge_header, 10**18),
            _model(weights.huge_header, 10**8),
            _model(weights.huge_tensor),
            _model(weights.torch_file, weights.repeated),
            *(
                _model(weights.safetensors, {name: value})
                for name in ("hidden_size", "num_hidden_layers", "decoder_num_hidden_layers")
                for value in (10**9, 10**15)
            ),
        ],
        [read_weights],
    ),
    Hostile(
        "checkpoint-damaged",
        "a list in place of tensors, NaN among the weights, tensors without values, sparse or "
        "complex ones",
        [
            _model(weights.torch_file, list),
            _model(weights.torch_file, weights.with_nan),
            *(
                _model(weights.torch_file, weights.of_kind(kind))
                for kind in ("sparse", "meta", "complex", "integer")
            ),
            _model(weights.folder),
        ],
        [read_weights],
    ),
)


def warm() -> None:
    """Import what readers use, so that a measurement is that of reading."""
    import bids  # noqa: F401
    import nilearn  # noqa: F401
    import pandas  # noqa: F401
    import torch
    from nipype.pipeline import plugins  # noqa: F401

    from brainlm_bids.bids import participants, timeseries  # noqa: F401
    from brainlm_bids.interfaces import images as _  # noqa: F401
    from brainlm_bids.model.checkpoint import load_model
    from brainlm_bids.resources import parcels

    torch.set_num_threads(1)  # threads do not outlive the fork
    load_model("random:tiny", seed=0)
    parcels()


def _tried(row: Hostile, folder: Path, _seconds: float) -> list[Trial]:
    warm()
    return list(_attempts(row, folder))


def _attempts(row: Hostile, folder: Path) -> Iterator[Trial]:
    for number, make in enumerate(row.makes):
        for read in row.reads:
            place = folder / f"{number}-{read.__name__}"
            place.mkdir()
            path = make(place)
            trial = in_own_process(partial(read, path), must_refuse=row.must_refuse)
            yield trial if trial.held else _placed(trial, number, read)
            with suppress(OSError):
                path.unlink()


def _placed(trial: Trial, number: int, read: Read) -> Trial:
    told = f"{read.__name__} of file {number}, {trial.megabytes:.0f} MB: {trial.told}"
    return Trial(False, told, trial.seconds, trial.megabytes)


def _fault(row: Hostile) -> Fault:
    least = REFUSED if row.must_refuse else HARMLESS
    return Fault(f"hostile/{row.name}", row.about, least, partial(_tried, row))


FAULTS = tuple(_fault(row) for row in ROWS)
