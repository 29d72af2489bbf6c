"""Tables of people: missing values and ids, as registries, converters and spreadsheets write them.

A small cohort whose default mode network follows age is written as the participant level would
have written it. One call decodes every column of its table; a call with another table each tells
how ids are matched.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.hard.benign import ATLAS, TEMPLATE, description
from benchmarks.hard.call import Call
from benchmarks.hard.case import REFUSED, RIGHT, WARNED, Batch, Case, Result, Verdict
from benchmarks.hard.judge import checked
from brainlm_bids import files, resources
from brainlm_bids.bids import outputs
from brainlm_bids.bids.outputs import Naming

N, VOLUMES, TR = 16, 60, 0.735
DEFAULT_MODE = 5


def ages() -> np.ndarray:
    """The truth: an age per person."""
    return np.random.default_rng(3).uniform(20, 80, N).round(1)


def people() -> list[str]:
    """The participants."""
    return [f"sub-{k + 1:03d}" for k in range(N)]


def cohort(folder: Path) -> None:
    """Finished runs of 16 people, and a raw data set that has their table alone."""
    rng = np.random.default_rng(4)
    description(folder / "raw")
    description(folder / "out", DatasetType="derivative")
    for person, age in zip(people(), ages(), strict=True):
        _recording(folder / "out", f"{person}_task-rest", rng, 0.2 + 1.6 * (age - 20) / 60)
    columns = {"age": [f"{age:.1f}" for age in ages()]}
    write_table(folder, people(), columns)


def write_table(
    folder: Path,
    ids: list[str],
    columns: dict[str, list[str]],
    *,
    before: bytes = b"",
    extra: tuple[str, ...] = (),
    name: str = "participant_id",
) -> None:
    """Write participants.tsv; the columns of an earlier call are kept if the ids are the same."""
    rows = ["\t".join([name, *columns])]
    rows += ["\t".join(cells) for cells in zip(ids, *columns.values(), strict=True)]
    text = "\n".join([*rows, *extra]) + "\n"
    (folder / "raw" / "participants.tsv").write_bytes(before + text.encode())


def _recording(out: Path, stem: str, rng: np.random.Generator, strength: float) -> None:
    parcels = resources.parcels()
    names, networks = list(parcels.names), parcels.network_index
    courses = rng.standard_normal((VOLUMES, 8))
    gain = np.where(networks == DEFAULT_MODE, strength, 0.6)
    series = courses[:, networks] * gain + rng.standard_normal((VOLUMES, len(names)))
    series = 10000 + 40 * series
    naming = Naming(str(out), stem, TEMPLATE, ATLAS)
    sidecar = {
        "RepetitionTime": TR,
        "DummyVolumes": 0,
        "NumberOfVolumes": VOLUMES,
        "MeanFramewiseDisplacement": 0.1,
        "MissingParcels": [],
        "Denoising": "nonaggr",
        "Atlas": {"Name": ATLAS},
        "Template": {"Name": TEMPLATE},
        "Configuration": f"simulated-{stem}",
        "Warnings": [],
    }
    full = [[50] * len(names)] * 2
    header = ["index", "name", "n_voxels", "n_covered", "fraction"]
    written = [
        files.write_series(naming.path("denoised"), names, series),
        files.write_json(naming.path("denoised", extension=".json"), sidecar),
        files.write_matrix(naming.path("pearson"), names, np.corrcoef(series.T)),
        files.write_tsv(
            naming.path("coverage"),
            header,
            [parcels.index.tolist(), names, *full, [1.0] * len(names)],
        ),
    ]
    outputs.write_record(out, stem, "series", str(sidecar["Configuration"]), written)


# --- what was made of a table ----------------------------------------------------------------


def used_values(out: Path, target: str) -> tuple[np.ndarray, np.ndarray]:
    """The true ages and the values that were decoded, of the recordings that were."""
    tables = sorted(out.glob("*_predictions.tsv"))
    rows = [row for path in tables for row in files.read_rows(path) if row["target"] == target]
    truth = dict(zip(people(), ages(), strict=True))
    known = np.array([truth[row["participant_id"]] for row in rows])
    return known, np.array([float(row["truth"]) for row in rows])


def notes(out: Path, target: str) -> list[str]:
    """What the sidecar of the decoding says about a target."""
    found = []
    for path in sorted(out.glob("*_decoding.json")):
        sidecar = json.loads(path.read_text())
        for key in ("Notes", "NotDecoded"):
            value = (sidecar.get(key) or {}).get(target)
            found += value if isinstance(value, list) else [value] if value else []
    return found


def judge_column(case: Case, done: Call, folder: Path) -> Result:
    """What became of one column: its row, its notes, and the values that were used."""
    out, result = folder / "out", Result(case)
    rows = [row for row in done.rows if row["source"].startswith(f"decoding of {case.name} ")]
    said = " ".join(notes(out, case.name))
    if rows and rows[0]["status"] in ("skipped", "failed"):
        result.status, result.told = rows[0]["status"], rows[0]["reason"]
        return checked(result)
    return with_values(Result(case, "done", said, [said] if said else []), out, case.name)


def with_values(result: Result, out: Path, target: str) -> Result:
    """Add the correlation of the values that were decoded with the true ones."""
    truth, used = used_values(out, target)
    if len(used) < 2:
        result.fault = "done, but there is no prediction"
        return result
    varied = np.ptp(used) > 0
    result.r = float(np.corrcoef(truth, used)[0, 1]) if varied else 0.0
    return checked(result)


def judge_ages(result: Result, folder: Path) -> Result:
    """What a call of its own made of the ages."""
    if result.fault or result.status != "done":
        return result
    return with_values(result, folder / "out", "age")


# --- values: a column each, one call ---------------------------------------------------------

_GONE = (2, 9, 13)


def _missing(word: str) -> list[str]:
    return [word if k in _GONE else f"{age:.1f}" for k, age in enumerate(ages())]


COLUMNS: dict[str, list[str]] = {
    "benign": [f"{age:.1f}" for age in ages()],
    "na": _missing("n/a"),
    "blank": _missing(""),
    "nan": _missing("NaN"),
    "null": _missing("null"),
    "dot": _missing("."),
    "missing": _missing("missing"),
    "unknown": _missing("Unknown"),
    "excel": _missing("#N/A"),
    "minus9999": _missing("-9999"),
    "minus999": _missing("-999"),
    "code999": _missing("999"),
    "padded": [f" {age:.1f} " for age in ages()],
    "comma": [f"{age:.1f}".replace(".", ",") for age in ages()],
    "years": [f"{age:.0f} years" for age in ages()],
    "above": ["89+" if k in _GONE else f"{age:.1f}" for k, age in enumerate(ages())],
    "words": [f"person {k}" for k in range(N)],
    "same": ["5"] * N,
    "site": ["1" if k % 2 else "2" for k in range(N)],
}
_MAY_WARN = (RIGHT, WARNED)


def _column(name: str, about: str, *expected: Verdict, says: str = "") -> Case:
    return Case(name, about, expected, _add_columns, says=says)


def _add_columns(folder: Path) -> None:
    write_table(folder, people(), COLUMNS)


def _command(folder: Path, targets: tuple[str, ...], *flags: str) -> list[str]:
    return [
        *(str(folder / "raw"), str(folder / "out"), "group", "-w", str(folder / "work")),
        *("--offline", "--atlas", ATLAS, "--template", TEMPLATE, "--model", "random:tiny"),
        *("--mask-ratio", "0.5", "--permutations", "0", "--readouts", "linear"),
        *("--target", *targets, *flags),
    ]


VALUES = Batch(
    "people, values",
    "Columns of participants.tsv as targets: r is that of the values that were used with the true "
    "ones.",
    cohort,
    lambda folder: _command(folder, tuple(COLUMNS)),
    (
        _column("na", "three values n/a", *_MAY_WARN),
        _column("blank", "three blank cells", *_MAY_WARN),
        _column("nan", "three values NaN", *_MAY_WARN),
        _column("null", "three values null", *_MAY_WARN),
        _column("dot", "three values “.”", *_MAY_WARN),
        _column(
            "missing", "three values “missing”", *_MAY_WARN, REFUSED, says="'missing'|no value"
        ),
        _column(
            "unknown", "three values “Unknown”", *_MAY_WARN, REFUSED, says="'unknown'|no value"
        ),
        _column("excel", "three values “#N/A”", *_MAY_WARN, REFUSED),
        _column("minus9999", "three values −9999", WARNED, REFUSED, RIGHT, says="9999"),
        _column("minus999", "three values −999", WARNED, REFUSED, RIGHT, says="999"),
        _column("code999", "three values 999", WARNED, REFUSED, RIGHT, says="999"),
        _column("padded", "values between blanks", *_MAY_WARN),
        _column("comma", "decimal commas", *_MAY_WARN, REFUSED, says="comma|,"),
        _column("years", "“40 years”", *_MAY_WARN, REFUSED, says="years"),
        _column("above", "“89+” three times", *_MAY_WARN, REFUSED, says="89+"),
        _column("words", "a word of its own for everybody", REFUSED, says="words"),
        _column("same", "the same value for everybody", REFUSED, says="same value"),
    ),
    judge=judge_column,
)


# --- ids: a call each ------------------------------------------------------------------------


def _ids(change: Callable[[list[str]], list[str]], **options: object) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        columns = {"age": COLUMNS["benign"]}
        write_table(folder, change(people()), columns, **options)  # type: ignore[arg-type]

    return build


def _sessions(folder: Path) -> None:
    twice = [name for person in people() for name in (person, person)]
    age = [value for value in COLUMNS["benign"] for _ in (1, 2)]
    write_table(folder, twice, {"session_id": ["ses-1", "ses-2"] * N, "age": age})


def _twice(folder: Path) -> None:
    again = "\t".join([people()[0], COLUMNS["benign"][0]])
    write_table(folder, people(), {"age": COLUMNS["benign"]}, extra=(again, ""))


def _contradicting(folder: Path) -> None:
    again = "\t".join([people()[0], "99"])
    write_table(folder, people(), {"age": COLUMNS["benign"]}, extra=(again,))


_AGE = (
    *("{folder}/raw", "{folder}/out", "group", "-w", "{folder}/work", "--offline"),
    *("--atlas", ATLAS, "--template", TEMPLATE, "--model", "random:tiny", "--mask-ratio", "0.5"),
    *("--permutations", "0", "--target", "age"),
)


def _call(
    name: str, about: str, build: Callable[[Path], None], *expected: Verdict, says: str = ""
) -> Case:
    return Case(name, about, expected, build, arguments=_AGE, says=says)


IDS = Batch(
    "people, ids",
    "How the ids of participants.tsv are matched with the recordings.",
    cohort,
    lambda folder: [],
    (
        _call("noPrefix", "ids without sub-", _ids(lambda ids: [i[4:] for i in ids]), *_MAY_WARN),
        _call(
            "lostZeros",
            "ids that lost their zeros",
            _ids(lambda ids: [str(int(i[4:])) for i in ids]),
            *_MAY_WARN,
        ),
        _call("blanks", "blanks around ids", _ids(lambda ids: [f" {i} " for i in ids]), *_MAY_WARN),
        _call(
            "strangers",
            "ids of other people",
            _ids(lambda ids: [f"NDAR{i[4:]}" for i in ids]),
            REFUSED,
            says="ndar|no id",
        ),
        _call(
            "bomTable",
            "a byte-order mark",
            _ids(lambda ids: ids, before=b"\xef\xbb\xbf"),
            *_MAY_WARN,
        ),
        _call("sessions", "a row per session", _sessions, *_MAY_WARN),
        _call("twiceRow", "a row twice, and a blank one", _twice, *_MAY_WARN),
        _call(
            "contradicting", "two rows of a person that disagree", _contradicting, WARNED, REFUSED
        ),
        _call(
            "otherName",
            "the column of ids is called subject",
            _ids(lambda ids: ids, name="subject"),
            REFUSED,
            RIGHT,
            says="participant_id",
        ),
    ),
    after=judge_ages,
)
