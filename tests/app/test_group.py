"""The group level as its user calls it, on derivatives whose truth is known."""

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nb
import numpy as np
import pandas as pd
import pytest
from simulated_cohort import ATLAS, DUMMIES, SPACE, write_cohort, write_recording

from brainlm_bids import files, resources
from brainlm_bids.bids import outputs
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.bids.ratings import Ratings
from brainlm_bids.cohort import sources
from brainlm_bids.files import read_rows, read_tsv
from brainlm_bids.interfaces.cohort.common import write_parquet
from brainlm_bids.notices import Kind, notice
from brainlm_bids.parcels import scaling
from brainlm_bids.phantom import write_phantom

LABEL = "randomtiny"
COHORT = f"model-{LABEL}_scaling-cohort"
FORMS = ("md", "tex", "html", "bib")
DECODED = ("--target", "age", "noise", "--target", "scanner", "--permutations", "199")
DECODED += ("--readouts", "linear")


@dataclass(frozen=True)
class Call:
    """A finished call: its folder, exit code, words, and the rows of its status table."""

    out: Path
    returncode: int
    stderr: str
    rows: dict[str, dict[str, str]]

    def path(self, key: str, **values: str) -> Path:
        naming = Naming(str(self.out), "group_task-rest", SPACE, ATLAS, "cohort")
        return naming.path(key, model=LABEL, **values)

    def table(self, key: str) -> list[dict[str, str]]:
        return read_rows(self.path(key))

    def sidecar(self, key: str) -> dict:
        return files.read_json(self.path(key, extension=".json"))


def call(
    raw: Path,
    out: Path,
    work: Path,
    *flags: str,
    levels: tuple[str, ...] = ("group",),
    model: str = "random:tiny",
) -> Call:
    command = [sys.executable, "-m", "brainlm_bids", str(raw), str(out), *levels]
    command += ["-w", str(work), "--mask-ratio", "0.75", "--model", model, "--offline"]
    command += ["--atlas", ATLAS, "--template", SPACE, *flags]
    environment = {k: v for k, v in os.environ.items() if k != "TEMPLATEFLOW_HOME"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    tables = sorted((out / "logs").glob("*_status.tsv"), key=lambda path: path.stat().st_mtime)
    rows = {}
    if tables:
        with tables[-1].open() as handle:
            rows = {row["source"]: row for row in csv.DictReader(handle, delimiter="\t")}
    return Call(out, done.returncode, done.stderr, rows)


def hashes(out: Path, *left_out: str) -> dict[str, str]:
    """SHA-256 of every file that is no log."""
    files = [path for path in out.rglob("*") if path.is_file()]
    names = {path.relative_to(out).as_posix(): path for path in files}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in names.items()
        if not name.startswith(("logs/", *left_out))
    }


# --- the planted effect ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Call:
    """24 subjects whose default mode network is as strong as their age says."""
    folder = tmp_path_factory.mktemp("planted")
    raw, out = write_cohort(folder, 24)
    return call(raw, out, folder / "work", *DECODED, "--nprocs", "2")


def _score(done: Call, target: str, metric: str, features: str) -> dict[str, str]:
    """The row of connectivity, or that of another source with its first readout and scaling."""
    key = {"target": target, "metric": metric, "features": features}
    return next(row for row in done.table("decoding") if key.items() <= row.items())


def test_the_planted_target_is_decoded_and_the_shuffled_one_is_not(planted: Call) -> None:
    assert planted.returncode == 0, planted.stderr[-2000:]
    age, noise = (_score(planted, name, "r2", "connectivity") for name in ("age", "noise"))
    assert float(age["permutation_p"]) < 0.05 and float(age["low"]) > 0
    assert float(_score(planted, "age", "pearson_r", "connectivity")["value"]) > 0.8
    assert float(noise["permutation_p"]) > 0.05 and float(noise["value"]) < 0.2


def test_how_columns_were_coded_is_on_the_screen_and_in_the_sidecar(planted: Call) -> None:
    assert "age: numbers from 2" in planted.stderr
    coding = planted.sidecar("decoding")["Coding"]
    assert coding["age"]["Kind"] == "number" and coding["age"]["Missing"] == 0
    assert set(coding) == {"age", "noise"}  # scanner is the same everywhere


def test_every_source_has_a_row_and_what_must_be_at_chance_is(planted: Call) -> None:
    rows = [row for row in planted.table("decoding") if row["target"] == "age"]
    assert tuple(rows[0]) == sources.DECODING_COLUMNS
    keys = [tuple(row[name] for name in ("features", "readout", "scaling")) for row in rows]
    assert list(dict.fromkeys(keys)) == [one[:3] for one in sources.selected(["linear"])]
    errors = [float(row["value"]) for row in rows if row["metric"] == "mse"]
    assert len(set(errors)) == len(errors)  # the control has other weights, not the model's
    # every recording has data in all parcels: nothing differs, and the mean is predicted
    assert float(_score(planted, "age", "r2", "coordinates")["value"]) == pytest.approx(0, abs=1e-9)
    assert {(row["n_subjects"], row["n_folds"], row["n_repeats"]) for row in rows} == {
        ("24", "5", "10")
    }


def test_predictions_are_those_that_the_scores_are_made_from(planted: Call) -> None:
    predictions = planted.table("predictions")
    ages = {row["participant_id"]: float(row["age"]) for row in read_rows(_raw(planted))}
    own = [row for row in predictions if row["target"] == "age"]
    assert {row["participant_id"]: float(row["truth"]) for row in own} == ages
    # what the table says is what the predictions give
    guess = np.array([[float(row["truth"]), float(row["connectivity_linear"])] for row in own])
    expected = float(_score(planted, "age", "mse", "connectivity")["value"])
    assert np.square(guess[:, 0] - guess[:, 1]).mean() == pytest.approx(expected, rel=1e-5)


def test_what_else_is_in_the_embedding_is_looked_for(planted: Call) -> None:
    found = {
        (row["variable"], row["features"], row["measure"]): row
        for row in planted.table("group_confounding")
    }
    assert {name for name, *_ in found} == {"mean_fd", "age", "noise"}
    assert {features for _, features, _ in found} == {"embedding", "connectivity", "untrained"}
    assert float(found["age", "connectivity", "pearson_r"]["value"]) > 0.5
    assert float(found["age", "connectivity", "pearson_r"]["p"]) < 0.05
    assert float(found["mean_fd", "connectivity", "median_absolute_r"]["p"]) > 0.01
    missing = planted.sidecar("group_confounding")["NotMeasured"]
    assert missing["scanner"] == "is the same in all recordings"
    assert planted.table("group_reliability") == []
    assert 'id="what-else-is-in-the-embedding-1"' in (planted.out / "group.html").read_text()


def _raw(done: Call) -> Path:
    return done.out.parent / "raw" / "participants.tsv"


def test_a_constant_target_is_said_and_the_rest_goes_on(planted: Call) -> None:
    row = planted.rows[f"decoding of scanner ({LABEL})"]
    assert row["status"] == "skipped"
    assert "same value" in row["reason"]
    assert "scanner" in planted.sidecar("decoding")["NotDecoded"]
    assert {row["target"] for row in planted.table("decoding")} == {"age", "noise"}


def test_statistics_are_those_of_the_stacked_recordings(planted: Call) -> None:
    parts = []
    for path in sorted(planted.out.glob("sub-*/func/*_desc-denoised_timeseries.tsv")):
        series = read_tsv(path)[1][DUMMIES:]
        parts.append((series - series.mean(axis=0)).astype(np.float32))
    low, median, high = np.percentile(np.concatenate(parts).astype(float), [25, 50, 75], axis=0)
    names = list(resources.parcels().names)
    path = planted.out / f"atlas-{ATLAS}_desc-cohort_scaling.tsv"
    stats = scaling.load_stats(path, names)
    # nine digits are written
    np.testing.assert_allclose(stats.median, median, rtol=6e-9, atol=1e-12)
    np.testing.assert_allclose(stats.iqr, high - low, rtol=6e-9)
    sidecar = json.loads(path.with_suffix(".json").read_text())
    assert (sidecar["NumberOfRecordings"], sidecar["NumberOfSubjects"]) == (24, 24)


def test_recordings_are_scaled_with_the_cohort(planted: Call) -> None:
    """As `participant --scaling-stats` does, from the file that the group wrote."""
    naming = Naming(str(planted.out), "sub-05_task-rest", SPACE, ATLAS)
    names = list(resources.parcels().names)
    stats = scaling.load_stats(planted.out / f"atlas-{ATLAS}_desc-cohort_scaling.tsv", names)
    expected, _ = scaling.scale(read_tsv(naming.path("denoised"))[1][DUMMIES:], stats)
    found = read_tsv(naming.path("cohort_robust"))[1]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    # louder recordings stay louder: their own statistics would have made all IQRs 1
    spread = np.subtract(*np.percentile(found, [75, 25], axis=0))
    assert np.std(spread) > 0.05


def test_tables_hold_every_recording(planted: Call) -> None:
    naming = Naming(str(planted.out), "sub-07_task-rest", SPACE, ATLAS, "cohort")
    own = read_rows(naming.path("recording_embedding", model=LABEL))[0]
    table = planted.table("group_embeddings")
    assert len(table) == 24
    row = next(row for row in table if row["participant_id"] == "sub-07")
    dimensions = [name for name in own if name.startswith("cls_")]
    assert [row[name] for name in dimensions] == [own[name] for name in dimensions]
    metrics = planted.table("group_metrics")
    assert {row["predictor"] for row in metrics} >= {"model", "parcel_mean", "ridge"}
    assert len({row["recording"] for row in metrics}) == 24


def test_consensus_of_connectivity_is_the_planted_networks(planted: Call) -> None:
    """The series were made of the seven networks: the vote over them finds every parcel."""
    rows = planted.table("group_networks")
    consensus = {r["features"]: r for r in rows if r["participant_id"] == "consensus"}
    assert float(consensus["series"]["accuracy"]) == 1
    assert float(consensus["series"]["adjusted_rand"]) == 1
    assert float(consensus["model"]["accuracy"]) < 0.6
    dseg = np.asarray(nb.load(planted.path("consensus")).dataobj)
    shares = np.asarray(nb.load(planted.path("network_probability")).dataobj)
    atlas = resources.approximate_atlas()[0]
    assert np.array_equal(dseg > 0, atlas > 0)
    inside = atlas > 0
    np.testing.assert_allclose(shares[inside].sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(shares[inside].argmax(axis=1) + 1, dseg[inside])


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.identifiers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.links += [str(values[key]) for key in ("href", "src") if key in values]
        if "id" in values:
            self.identifiers.append(str(values["id"]))


def test_the_report_leads_nowhere_that_is_not(planted: Call) -> None:
    text = (planted.out / "group.html").read_text()
    page = _Page()
    page.feed(text)
    assert len(page.links) > 15
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.identifiers
        elif link.startswith("./"):
            assert (planted.out / link[2:]).is_file(), link
    assert "untrained" in text
    assert "same value &#39;one&#39;" in text
    assert text.count("<option") >= 3  # age, noise, mean_fd …
    assert "--max-mean-fd" not in text


def test_methods_say_what_was_done(planted: Call) -> None:
    text = (planted.out / "logs" / "CITATION_group.md").read_text()
    sidecar, rows = planted.sidecar("decoding"), planted.table("decoding")
    assert "scanner" in sidecar["NotDecoded"]
    assert "age and noise were decoded by ridge regression (as in scikit-learn" in text
    assert f"{sidecar['Permutations']} permutations" in text and "199 permutations" in text
    assert f"{rows[0]['n_recordings']} recordings of {rows[0]['n_subjects']} participants" in text
    assert f"{sidecar['OuterFolds']} folds" in text and f"{sidecar['InnerFolds']} inner" in text
    assert "24 recordings of 24 participants, out of 24 recordings" in text
    assert "covered by a fraction of less than 0.5" in text
    assert "whose mean framewise displacement was above" not in text
    assert "all volumes of all 24 recordings together" in text and "interquartile" in text
    assert "the CLS token" in text and "75 % of the tokens masked" in text
    assert "ran on a CPU in float32 precision with random seed 42" in text
    assert "[@" not in text and "CC0" in text and "numpy" in text
    assert all((planted.out / "logs" / f"CITATION_group.{form}").is_file() for form in FORMS)


def test_the_sentence_under_a_table_is_that_of_its_differences(planted: Call) -> None:
    sidecar = planted.sidecar("decoding")
    compared, default = sidecar["Comparisons"]["age"], sidecar["DefaultReadout"]["age"]
    rows = [row for row in planted.table("decoding") if row["target"] == "age"]
    values = {
        sources.find(*(row[key] for key in ("features", "readout", "scaling"))): float(row["value"])
        for row in rows
        if row["metric"] == "r2"
    }
    assert sources.default_of(list(values)).name == default
    for source, value in values.items():
        if source.name != default:
            gain = values[sources.by_name(default)] - value
            assert compared[source.name]["Difference"] == pytest.approx(gain, abs=1e-5)
    baselines = {one: value for one, value in values.items() if one.role == sources.BASELINE}
    best = max(baselines, key=lambda one: baselines[one])
    page = " ".join((planted.out / "group.html").read_text().split())
    found = compared[best.name]
    word = "better than" if found["Low"] > 0 else "worse than"
    word = word if found["Low"] > 0 or found["High"] < 0 else "not distinguishable from"
    assert f"{word} that of the best baseline, {best.label}" in page


def test_the_same_call_again_computes_nothing(planted: Call, tmp_path: Path) -> None:
    before = hashes(planted.out)
    times = {p: p.stat().st_mtime_ns for p in planted.out.glob(f"sub-*/func/*{COHORT}*")}
    assert times
    again = call(planted.out.parent / "raw", planted.out, tmp_path, *DECODED, "--nprocs", "1")
    assert again.returncode == 0
    recordings = [row for source, row in again.rows.items() if source.startswith("sub-")]
    assert {row["status"] for row in recordings} == {"cached"}
    assert hashes(planted.out) == before
    assert {p: p.stat().st_mtime_ns for p in times} == times
    assert not [*tmp_path.glob("**/decode_*"), *tmp_path.glob("**/embed_*")]


def test_trained_probes_have_rows_of_their_own(planted: Call, tmp_path: Path) -> None:
    """The same folder decoded again: nothing is embedded anew but for the tokens."""
    out = tmp_path / "out"
    shutil.copytree(planted.out, out)
    flags = ("--target", "group", "--readouts", "attentive", "mlp", "--permutations", "99")
    done = call(planted.out.parent / "raw", out, tmp_path / "work", *flags, "--nprocs", "2")
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [row for row in done.table("decoding") if row["metric"] == "auc"]
    keys = [tuple(row[name] for name in ("features", "readout", "scaling")) for row in rows]
    assert keys == [one[:3] for one in sources.selected(["attentive", "mlp"])]
    assert {(row["n_folds"], row["n_repeats"]) for row in rows} == {("5", "1")}
    # old and young differ in how strong the default mode network is: amplitudes show it
    by_source = dict(zip(keys, rows, strict=True))
    assert float(by_source["series", "mlp", "cohort"]["value"]) > 0.8
    assert float(by_source["series", "mlp", "cohort"]["permutation_p"]) < 0.05
    sidecar = done.sidecar("decoding")
    assert set(sidecar["PermutationP"]) == {"attentive", "mlp"}
    assert sidecar["DefaultReadout"]["group"].startswith("embedding_attentive_")
    text = (out / "logs" / "CITATION_group.md").read_text()
    assert "The attentive probe and the multilayer perceptron were trained once" in text


# --- a small cohort, with faults -------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Three subjects with two runs, as the participant level leaves them."""
    return write_cohort(tmp_path_factory.mktemp("small"), 3, runs=("_run-1", "_run-2"))


def _copy(small: tuple[Path, Path], folder: Path) -> Path:
    out = folder / "out"
    shutil.copytree(small[1], out)
    return out


def test_the_number_of_processes_changes_no_byte(small: tuple[Path, Path], tmp_path: Path) -> None:
    found, pages = [], []
    for n in ("1", "2"):
        folder = tmp_path / n
        flags = ("--nprocs", n, "--participant-label", "02")
        done = call(small[0], _copy(small, folder), folder / "work", *flags)
        assert done.returncode == 0, done.stderr[-2000:]
        # About has the command and its date
        found.append(hashes(done.out, "group.html"))
        pages.append((done.out / "group.html").read_text().partition('<section id="about">')[0])
    assert pages[0] == pages[1] and len(pages[0]) > 1000
    assert set(found[0]) == set(found[1])
    assert [name for name in found[0] if found[0][name] != found[1][name]] == []
    assert any("sub-02_task-rest_run-2" in name and COHORT in name for name in found[0])
    assert not any("sub-03" in name and COHORT in name for name in found[0])


def _as_older_versions_wrote_it(naming: Naming) -> None:
    """Another name for the connectivity, and no column of names in it."""
    present = naming.path("pearson")
    names, matrix = files.read_matrix(present)
    former = present.with_name(f"{naming.stem}_space-{SPACE}_atlas-{ATLAS}_desc-pearson_relmat.tsv")
    files.write_series(former, names, matrix)
    present.unlink()
    written = [naming.path("denoised"), naming.path("denoised", extension=".json"), former]
    out = Path(naming.output_dir)
    configuration, _ = outputs.read_record(out, naming.stem, "series") or ("", {})
    outputs.write_record(out, naming.stem, "series", configuration, written)


def test_broken_and_unsuited_recordings_are_listed_and_the_rest_goes_on(
    small: tuple[Path, Path], tmp_path: Path
) -> None:
    out = _copy(small, tmp_path)
    rng = np.random.default_rng(0)
    series = rng.standard_normal((60, 424)) * 40 + 10000
    write_recording(out, "sub-04_task-rest", series, mean_fd=0.9)
    narrow = series.copy()
    narrow[:, :300] = np.nan
    write_recording(out, "sub-05_task-rest", narrow)
    # the same size, so that only reading it tells
    torn = write_recording(out, "sub-06_task-rest", series).path("denoised")
    torn.write_bytes(torn.read_bytes().replace(b"\n", b"\t", 5))
    cut = write_recording(out, "sub-07_task-rest", series).path("denoised")
    cut.write_bytes(cut.read_bytes()[:-100])
    suspect = (notice(Kind.SUSPECT_REGISTRATION, "The registration has probably failed."),)
    write_recording(out, "sub-08_task-rest", series, warnings=suspect)
    (out / "logs" / "records" / "sub-01_task-rest_run-1_series.json").unlink()
    blurred = Naming(str(out), "sub-02_task-rest_run-2", SPACE, ATLAS).path("pearson")
    blurred.write_bytes(blurred.read_bytes().replace(b"0.", b"x.", 1))
    _as_older_versions_wrote_it(Naming(str(out), "sub-02_task-rest_run-1", SPACE, ATLAS))
    labels = [f"0{k}" for k in range(1, 9) if k != 3]
    flags = ("--max-mean-fd", "0.5", "--nprocs", "1", "--participant-label", *labels)
    done = call(small[0], out, tmp_path / "work", *flags, model="none")
    assert done.returncode == 1
    rows = {row["recording"]: row for row in done.table("group_recordings")}
    assert rows["sub-04_task-rest"]["status"] == "excluded"
    assert "mean FD 0.9 mm is above 0.5" in rows["sub-04_task-rest"]["reason"]
    assert rows["sub-05_task-rest"]["status"] == "excluded"
    assert "0.292 of the parcels" in rows["sub-05_task-rest"]["reason"]
    assert rows["sub-08_task-rest"]["status"] == "excluded"
    assert "has probably failed. (--include-suspect)" in rows["sub-08_task-rest"]["reason"]
    assert rows["sub-06_task-rest"]["status"] == "failed"
    assert "desc-denoised_timeseries.tsv" in rows["sub-06_task-rest"]["reason"]
    assert "not as it was written" in rows["sub-07_task-rest"]["reason"]
    assert "were not finished" in rows["sub-01_task-rest_run-1"]["reason"]
    assert rows["sub-02_task-rest_run-2"]["status"] == "failed"
    assert "x." in rows["sub-02_task-rest_run-2"]["reason"]
    counted = [name for name, row in rows.items() if row["status"] == "included"]
    assert counted == ["sub-01_task-rest_run-2", "sub-02_task-rest_run-1"]
    for name in counted:
        naming = Naming(str(out), name, SPACE, ATLAS)
        assert np.isfinite(read_tsv(naming.path("cohort_robust"))[1]).all()
    text = (out / "group.html").read_text()
    assert "--max-mean-fd" in text
    status = {row["status"] for row in done.rows.values()}
    assert status == {"done", "skipped", "failed"}


def test_only_the_statistics_are_needed(small: tuple[Path, Path], tmp_path: Path) -> None:
    """--model none and the first ten volumes; then with that file for statistics."""
    raw, out = small[0], _copy(small, tmp_path)
    shared = (raw, out, tmp_path / "work", "--nprocs", "1")
    done = call(*shared, "--scaling-volumes", "10", model="none")
    assert done.returncode == 0, done.stderr[-2000:]
    path = out / f"atlas-{ATLAS}_desc-cohort_scaling.tsv"
    stats = scaling.load_stats(path, list(resources.parcels().names))
    parts = []
    for one in sorted(out.glob("sub-*/func/*_desc-denoised_timeseries.tsv")):
        series = read_tsv(one)[1][DUMMIES:]
        parts.append((series - series.mean(axis=0))[:10].astype(np.float32))
    expected = np.median(np.concatenate(parts).astype(float), axis=0)
    np.testing.assert_allclose(stats.median, expected, rtol=6e-9, atol=1e-12)
    assert json.loads(path.with_suffix(".json").read_text())["VolumesPerRecording"] == 10
    assert not list((tmp_path / "work").glob("**/store.npy"))  # 8 GB of a large cohort
    naming = Naming(str(out), "sub-01_task-rest_run-1", SPACE, ATLAS)
    before = read_tsv(naming.path("cohort_robust"))[1]
    doubled = scaling.ScalingStats(stats.median, 2 * stats.iqr)
    scaling.save_stats(tmp_path / "other.tsv", list(resources.parcels().names), doubled)
    again = call(*shared, "--scaling-stats", str(tmp_path / "other.tsv"), model="none")
    assert again.returncode == 0, again.stderr[-2000:]
    np.testing.assert_allclose(read_tsv(naming.path("cohort_robust"))[1], before / 2, atol=1e-6)
    sidecar = files.read_json(naming.path("cohort_robust", extension=".json"))
    assert sidecar["ScalingStatistics"] == "other.tsv"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--target", "agee"), "no such column in participants.tsv"),
        (("--target", "age", "--regress-out", "moon"), "--regress-out moon"),
        (("--regress-out", "mean_fd"), "needs a --target"),
        (("--target", "age", "--harmonize", "combat:moon"), "--harmonize moon: no such"),
        (("--readouts", "linear"), "needs a --target"),
        (
            ("--target", "age", "--regress-out", "mean_fd", "--readouts", "mlp"),
            "needs linear among the --readouts",
        ),
        (("--participant-label", "99"), "no series of the selection"),
        (("--max-mean-fd", "0.0001"), "none of the 6 recordings is included"),
    ],
)
def test_slips_are_said_in_one_line(
    small: tuple[Path, Path], tmp_path: Path, flags: tuple[str, ...], says: str
) -> None:
    done = call(*small, tmp_path / "work", *flags)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2  # the atlas' warning, and this


@pytest.mark.parametrize("text", ["", "participant_id\tage\n01\t30\n01\t31\n\n"])
def test_a_broken_participants_table_stops_nothing_that_does_not_need_it(
    small: tuple[Path, Path], tmp_path: Path, text: str
) -> None:
    files.write_text(tmp_path / "raw" / "participants.tsv", text)
    done = call(tmp_path / "raw", small[1], tmp_path / "work", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "participants.tsv" in done.stderr


def test_an_empty_folder_asks_for_participant(small: tuple[Path, Path], tmp_path: Path) -> None:
    done = call(small[0], tmp_path / "nothing", tmp_path / "work")
    assert done.returncode == 2
    assert "run the participant level first" in done.stderr


def test_a_series_made_elsewhere_has_no_motion_and_no_coverage_table(tmp_path: Path) -> None:
    from brainlm_bids.bids.cohort import find_cohort
    from brainlm_bids.settings import Settings

    series = np.random.default_rng(0).standard_normal((60, 424)) * 40 + 10000
    series[:, :106] = np.nan
    naming = write_recording(tmp_path, "sub-01_task-rest", series)
    path = naming.path("denoised", extension=".json")
    sidecar = files.read_json(path)
    del sidecar["MeanFramewiseDisplacement"]
    files.write_json(path, sidecar)
    naming.path("coverage").unlink()
    written = [naming.path("denoised"), path, naming.path("pearson")]
    outputs.write_record(tmp_path, naming.stem, "series", "x", written)
    settings = Settings(tmp_path, tmp_path, tmp_path, max_mean_fd=0.2)
    found = find_cohort(settings, "another space", ATLAS, Ratings())
    assert [(one.status, one.coverage, one.mean_fd) for one in found] == [("included", 0.75, None)]
    assert found[0].naming.space == SPACE


def test_parquet_holds_what_the_table_holds(tmp_path: Path) -> None:
    path = tmp_path / "group_embeddings.tsv"
    columns = [["sub-01", "sub-02"], ["01", None], [0.123456789, np.nan]]
    files.write_tsv(path, ["participant_id", "run", "cls_0000"], columns)
    pytest.importorskip("pyarrow")
    frame = pd.read_parquet(write_parquet(path))
    assert frame["participant_id"].tolist() == ["sub-01", "sub-02"]
    assert frame["run"][0] == "01"
    assert frame["run"].isna()[1]
    assert frame["cls_0000"][0] == pytest.approx(0.1234568)
    assert frame["cls_0000"].isna()[1]


def test_parquet_of_many_rows_holds_numbers_below_words(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    n = 200_000  # pandas chooses types for some ten thousand rows at a time
    path = tmp_path / "group_predictions.tsv"
    truth = [*(["control", "patient"] * (n // 2)), *(f"{k % 80}.5" for k in range(n))]
    files.write_tsv(path, ["target", "truth"], [["group"] * n + ["age"] * n, truth])
    frame = pd.read_parquet(write_parquet(path))
    assert frame["truth"].tolist() == truth


# --- both levels -----------------------------------------------------------------------------


@pytest.mark.slow
def test_one_call_or_array_jobs_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_phantom(raw, n_subjects=2, n_volumes=44, tr=2.0, voxel=5.0, seed=3)
    both = ("participant", "group")
    one = call(raw, tmp_path / "one", tmp_path / "w1", "--nprocs", "2", levels=both)
    assert one.returncode == 0, one.stderr[-2000:]
    # the steps of both levels are one count, whose total is known at the beginning
    counts = re.findall(r" done \((\d+) of (\d+) steps", one.stderr)
    assert {int(total) for _, total in counts} == {len(counts)}
    assert [int(number) for number, _ in counts] == list(range(1, len(counts) + 1))
    for label in ("02", "01"):
        flags = ("--participant-label", label, "--nprocs", "1")
        done = call(raw, tmp_path / "jobs", tmp_path / "w2", *flags, levels=("participant",))
        assert done.returncode == 0
    jobs = call(raw, tmp_path / "jobs", tmp_path / "w3", "--nprocs", "1")
    assert jobs.returncode == 0
    # a subject's report tells how long its runs took, and all tell the commands and their dates
    reports = ("sub-01.html", "sub-02.html", "group.html")
    first, second = hashes(one.out, *reports), hashes(jobs.out, *reports)
    assert set(first) == set(second)
    assert [name for name in first if first[name] != second[name]] == []
    assert (one.out / "group.html").is_file()
