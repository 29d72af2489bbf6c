"""The words of the group's page and the tables beside them agree, whatever the tables hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_outputs import ATLAS, SPACE, write_outputs

from brainlm_bids import files
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.cohort.sources import (
    BASELINE,
    CONTROL,
    EMBEDDING,
    SOURCES,
    STATE_SOURCES,
    Source,
    default_of,
)
from brainlm_bids.report import network_facts
from brainlm_bids.report.best import decimals
from brainlm_bids.report.group import build_group_report, scaling_sentences
from brainlm_bids.report.group_audit import _cell, _summary
from brainlm_bids.report.group_decoding import gather_decodings
from brainlm_bids.report.group_reconstruction import cohort_metrics
from brainlm_bids.report.group_recordings import gather_lines
from brainlm_bids.report.measures import outliers
from brainlm_bids.report.recordings import gather_recordings
from brainlm_bids.report.states import gather_states

LABEL = "demo"
CHANCE = {"r2": 0.0, "auc": 0.5}
NAMES = {"r2": "R²", "auc": "AUC"}


def _naming(folder: Path) -> Naming:
    return Naming(str(folder), "group_task-rest", "MNI", "A424", "cohort")


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    files.write_tsv(path, list(rows[0]), [[row[key] for row in rows] for key in rows[0]])


def _random_scores(rng: np.random.Generator, sources: tuple[Source, ...]) -> dict[Source, Any]:
    """Scores of some of the sources, from a coarse grid so that ties are common; some undefined."""
    chosen = [one for one in sources if rng.random() < 0.6] or [sources[0]]
    grid = rng.choice([1, 0.1, 0.0004]) * rng.integers(-3, 5, len(chosen))
    return {
        one: None if rng.random() < 0.1 else float(value) + rng.choice([0, 0.5])
        for one, value in zip(chosen, grid, strict=True)
    }


def _largest(shown: dict[str, str]) -> set[str]:
    """Names whose number, as it is written, is the largest."""
    known = {name: text for name, text in shown.items() if text != "n/a"}
    top = max(known.values(), key=float, default="")
    return {name for name, text in known.items() if text == top}


def _length_of_joints(n: int) -> int:
    """Letters of the commas, and the "and", between n names."""
    return 0 if n < 2 else 2 * (n - 2) + len(" and ")


def _check_sentences(
    text: str, metric: str, shown: dict[str, str], roles: dict[str, str], own: Source | None
) -> None:
    """Every number in the text is that of the table, and so is every superlative."""
    for name, value in shown.items():
        for found in re.findall(rf"{re.escape(name)} \((-?[\d.e-]+)[;\s\[\)]", text):
            assert found == value, (name, text)
    best = _largest(shown)
    largest = re.search(rf"The largest {re.escape(metric)} in the table is that of (.*?) \(", text)
    if own is None:
        assert largest is None and ("not in the table" in text or "No readout" in text)
        return
    if shown[own.label] == "n/a":
        assert "is not defined" in text and "better" not in text
        return
    assert (largest is None) == (own.label in best), text
    if largest is not None:
        assert all(name in largest[1] for name in best), text
        assert len(largest[1]) == sum(map(len, best)) + _length_of_joints(len(best)), text
    baselines = {name: value for name, value in shown.items() if roles[name] == BASELINE}
    named = re.search(r"the best baselines?, (.*?)(?:\.\s|\.$)", text)
    assert (named is None) == (not _largest(baselines)), text
    if named is not None:
        assert all(name in named[1] for name in _largest(baselines)), text
        losers = set(baselines) - _largest(baselines)
        assert not any(f"{name} (" in named[1] for name in losers), text


@pytest.mark.parametrize("metric", ["r2", "auc"])
def test_decodings_of_any_scores(metric: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    naming = _naming(tmp_path)
    for _ in range(60):
        scores = _random_scores(rng, SOURCES)
        p = rng.choice([0.001, 0.05, 0.3, np.nan])
        width = rng.choice([0.0, 0.1, np.nan])
        rows = [
            {
                **{"target": "age", "type": "regression", "features": one.features},
                **{"readout": one.readout, "scaling": one.scaling, "metric": metric},
                "value": value,
                "low": None if value is None else value - width,
                "high": None if value is None else value + width,
                "permutation_p": p,
                **{"n_recordings": 1, "n_subjects": 1, "n_folds": 5, "n_repeats": 10},
            }
            for one, value in scores.items()
        ]
        default = default_of(list(scores))
        mine = None if default is None else scores[default]
        gaps = {
            one.name: {"Difference": mine - value, "Low": mine - value - 0.2, "High": mine - value}
            for one, value in scores.items()
            if mine is not None and value is not None and rng.random() < 0.5
        }
        _write(naming.path("decoding", model=LABEL), rows)
        files.write_json(
            naming.path("decoding", model=LABEL, extension=".json"),
            {"Comparisons": {"age": {"Metric": metric, **gaps}}, "Units": {"age": "subject"}},
        )
        (found,) = gather_decodings(naming, LABEL).targets
        assert "1 recording of 1 participant, one prediction for each participant" in found.about
        labels = [one.label for one in scores]
        shown = {
            label: line.cells[0].split(" ")[0]
            for label, line in zip(labels, found.lines, strict=True)
        }
        marked = {label for label, line in zip(labels, found.lines, strict=True) if line.best}
        assert marked == _largest(shown)
        roles = {one.label: one.role for one in scores}
        _check_sentences(found.verdict, NAMES[metric], shown, roles, default)
        if default is None or mine is None:
            continue
        assert ("predicts this target better than chance" in found.verdict) == (p < 0.05)
        assert ("although" in found.verdict) == (p < 0.05 and mine <= CHANCE[metric])
        for one, gap in gaps.items():
            other = next(source for source in scores if source.name == one)
            said = f"{other.label} ({decimals(scores[other])}; difference"
            words = ("better than that", "worse than that", "not distinguishable from that")
            if said in found.verdict:
                before = found.verdict[: found.verdict.index(said)]
                result = 0 if gap["Low"] > 0 else 1 if gap["High"] < 0 else 2
                assert max(words, key=before.rfind) == words[result], found.verdict


def test_the_introduction_names_what_is_in_the_table_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    naming = _naming(tmp_path)
    for _ in range(30):
        scores = _random_scores(rng, SOURCES)
        rows = [
            {
                **{"target": "age", "type": "regression", "features": one.features},
                **{"readout": one.readout, "scaling": one.scaling, "metric": "r2"},
                **{"value": value, "low": None, "high": None, "permutation_p": None},
                **{"n_recordings": 30, "n_subjects": 20, "n_folds": 5, "n_repeats": 1},
            }
            for one, value in scores.items()
        ]
        _write(naming.path("decoding", model=LABEL), rows)
        text = gather_decodings(naming, LABEL).about
        embeddings = [one for one in scores if one.role == EMBEDDING]
        assert ("attentive probe" in text) == any(o.readout == "attentive" for o in embeddings)
        assert ("CLS token" in text) == any(o.readout == "cls" for o in embeddings)
        for role in (BASELINE, CONTROL):
            assert (f"from {role}s (" in text) == any(one.role == role for one in scores)
        assert ("motion and coverage" in text) == any(o.features == "motion" for o in scores)


def test_what_was_done_about_sites_and_confounds(tmp_path: Path) -> None:
    naming = _naming(tmp_path)
    row = {"target": "age", "type": "regression", "features": "embedding", "readout": "mean"}
    row |= {"scaling": "cohort", "metric": "r2", "value": 0.1, "low": None, "high": None}
    row |= {"permutation_p": None, "n_recordings": 30, "n_subjects": 20, "n_folds": 5}
    _write(naming.path("decoding", model=LABEL), [row])
    path = naming.path("decoding", model=LABEL, extension=".json")

    def about(**sidecar: Any) -> str:
        files.write_json(path, sidecar)
        return gather_decodings(naming, LABEL).about

    assert "ermuted" not in about() and "ComBat" not in about()
    assert "mean_fd and site: regressed out" in about(RegressedOut=["mean_fd", "site"])
    harmonised = {"Method": "ComBat", "Column": "site", "Kept": {"age": ["sex"], "sex": ["age"]}}
    text = about(Harmonization=harmonised, PermutedWithin=["site"])
    assert "keeping effects of sex for age; of age for sex" in text
    assert "permuted between participants with the same site" in text
    harmonised["Kept"] = {"age": []}
    assert "keeping" not in about(Harmonization=harmonised)
    assert "Each value of site was predicted by a model of the others" in about(FoldsBy="site")


def test_states_of_any_scores(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    naming = _naming(tmp_path)
    for _ in range(40):
        scores = _random_scores(rng, STATE_SOURCES)
        p, chance = rng.choice([0.001, 0.2, np.nan]), rng.choice([0.5, np.nan])
        default = default_of(list(scores))
        counts = {"n_blocks": 1, "n_recordings": 1, "n_subjects": 1, "n_folds": 5}
        rows = [
            {
                **{"features": one.features, "readout": one.readout, "scaling": one.scaling},
                **{"metric": "balanced_accuracy", "value": value},
                "low": None if value is None else value - 0.1,
                "high": None if value is None else value + 0.1,
                **{"permutation_p": p, **counts},
            }
            for one, value in scores.items()
        ]
        confusion = [
            {
                **{"features": one.features, "readout": one.readout, "scaling": one.scaling},
                **{"truth": truth, "predicted": guess, "n_blocks": 1, "share": 0.25},
            }
            for one in scores
            for truth in "abc"
            for guess in "abc"
        ]
        _write(naming.path("states", model=LABEL), rows)
        _write(naming.path("state_confusion", model=LABEL), confusion)
        name = "" if default is None else default.name
        sidecar = {"DefaultReadout": name, "Chance": {"balanced_accuracy": chance}}
        path = naming.path("states", model=LABEL, extension=".json")
        files.write_json(path, {**sidecar, "LeftOutTogether": "blocks"})
        found = gather_states(naming, LABEL)
        assert found is not None
        assert "1 block in 1 recording of 1 participant, 5 folds of single blocks" in found.about
        shown = {line.cells[0]: line.cells[1].split(" ")[0] for line in found.lines}
        assert {line.cells[0] for line in found.lines if line.best} == _largest(shown)
        roles = {one.label: one.role for one in scores}
        _check_sentences(found.verdict, "balanced accuracy", shown, roles, default)
        if default is not None:
            assert found.by_state[0][3] == "b and c (0.25 each)"
            mine = scores[default]
            claimed = "finds the states better than chance" in found.verdict
            assert claimed == bool(
                mine is not None and p < 0.05 and not (np.isfinite(chance) and mine <= chance)
            )


def test_reconstructions_of_any_scores() -> None:
    rng = np.random.default_rng(8)
    predictors = ("model", "parcel_mean", "ridge", "time")
    for _ in range(200):
        n = int(rng.integers(1, 4))
        rows = [
            {
                **{"recording": f"r{k}", "mask_ratio": "0.75", "predictor": name},
                "r2": str(rng.integers(-2, 3) / 10) if rng.random() < 0.9 else "n/a",
            }
            for k in range(n)
            for name in predictors[: int(rng.integers(1, 5))]
        ]
        lines, sentences = cohort_metrics(rows)
        shown = {line.predictor: line.cells[2].split(" ")[0] for line in lines}
        expected = _largest(shown) if len(lines) > 1 else set()
        assert {line.predictor for line in lines if line.best} == expected
        for line in lines:
            assert ("(" in line.cells[2]) == (line.n_recordings > 1)
        for text in sentences:
            _check_reconstruction(text, rows)


def _check_reconstruction(text: str, rows: list[dict[str, str]]) -> None:
    """The model is said to be better than those whose mean is smaller, and no others."""
    from brainlm_bids.report.model_facts import baseline_name

    scores: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["r2"] != "n/a":
            scores.setdefault(row["recording"], {})[row["predictor"]] = float(row["r2"])
    names = {row["predictor"] for row in rows}
    complete = [one for one in scores.values() if set(one) == names]
    means = {name: round(float(np.mean([one[name] for one in complete])), 6) for name in names}
    assert f"over {len(complete)} recording" in text
    better, _, rest = text.partition("not better than")
    if "predicts no better than" in text:
        better, rest = "", text
    for name in names - {"model"}:
        named = baseline_name(name)
        is_better = means["model"] > means[name] + 5e-4
        assert (named in better.split(". Its R²")[0]) == is_better, text
        assert (named in rest.split(". Its R²")[0]) == (not is_better), text
    found = re.search(r"in (\d+) of (\d+) recordings", text)
    assert (found is None) == (len(complete) == 1)


def test_networks_of_any_scores() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        table = []
        for who, features in (
            *(("sub-1", "model"), ("sub-1", "series"), ("sub-2", "model")),
            *(("consensus", "model"), ("consensus", "series")),
            ("control", "spatial_null_95"),
        ):
            if rng.random() < 0.8:
                cells = {
                    name: "n/a" if rng.random() < 0.1 else str(rng.integers(0, 4) / 10)
                    for name in network_facts.MEASURES
                }
                table.append({"participant_id": who, "features": features, **cells})
        rows = network_facts.cohort_rows(table)
        best = network_facts.cohort_best(table)
        for kind in ("consensus", "recordings"):
            places = [k for k, row in enumerate(rows) if row[0].startswith(kind)]
            shown = {str(k): rows[k][2].split(" ")[0] for k in places}
            known = [text for text in shown.values() if text != "n/a"]
            expected = _largest(shown) if len(known) > 1 else set()
            assert {str(k) for k in best if k in places} == expected
        cells_of = {row[0]: row[1:] for row in rows}
        limit = cells_of.get("control, smooth random fields, 95 %")
        for text in network_facts.cohort_verdicts(table):
            _check_networks(text, cells_of, limit, table)


def _check_networks(
    text: str,
    cells_of: dict[str, tuple[str, ...]],
    limit: tuple[str, ...] | None,
    table: list[dict[str, str]],
) -> None:
    n_recordings = sum(
        row["participant_id"].startswith("sub") and row["features"] == "model" for row in table
    )
    if "single recordings" in text:
        assert n_recordings > 1
    single = "of single" in text or "of the recording" in text
    mine = cells_of["recordings, model" if single else "consensus, model"]
    names = list(network_facts.MEASURES.values())
    measures = "|".join(sorted(names, key=len, reverse=True))
    for measure, value, high in re.findall(rf"({measures}) \((\S+), limit (\S+)\)", text):
        place = names.index(measure)
        assert limit is not None
        assert mine[place].split(" ")[0] == value and limit[place] == high
        better = "" if "no better" in text else text.partition("but not in")[0]
        assert (f"{measure} ({value}, limit {high})" in better) == (float(value) > float(high))
    for measure, value, other in re.findall(rf"({measures}) \((\S+) against (\S+)\)", text):
        place = names.index(measure)
        others = cells_of["consensus, functional connectivity"]
        assert (mine[place], others[place]) == (value, other)
        before = text[: text.index(f"{measure} ({value} against {other})")]
        words = ("better in", "equally well in", "less well in")
        said = max(words, key=before.rfind)
        expected = words[0] if float(value) > float(other) else words[2]
        assert said == (words[1] if value == other else expected)


def test_the_audit_of_any_shares() -> None:
    rng = np.random.default_rng(4)
    for _ in range(200):
        rows = [
            {
                **{"variable": name, "measure": "variance_share_adjusted", "features": features},
                "value": "n/a" if rng.random() < 0.1 else f"{rng.integers(-2, 5) / 100}",
                "p": rng.choice(["0.001", "0.05", "0.7", "n/a"]),
            }
            for name in ("site", "mean_fd", "age")
            for features in ("embedding", "connectivity", "untrained")
            if rng.random() < 0.8
        ]
        text = _summary(rows)
        found = text.partition("No difference was found with")[0]
        for row in rows:
            if row["features"] != "embedding":
                continue
            known = row["value"] != "n/a" and row["p"] != "n/a"
            differs = known and float(row["p"]) < 0.05 and float(row["value"]) > 0
            said = f"{row['variable']} (" in found.partition("A target")[0]
            assert said == differs, text
            if known:
                assert f"{row['variable']} ({100 * float(row['value']):.1f} % of its" in text
            else:
                assert row["variable"] in text.partition("Not tested")[2]


def test_a_cell_has_one_unit() -> None:
    row = {"value": "0.2", "low": "0.1", "high": "0.3", "chance": "0.05", "p": "0.01"}
    assert _cell(row, is_share=True) == "20.0 % [10.0 %, 30.0 %]; chance 5.0 %; p = 0.01"
    assert _cell(row, is_share=False) == "0.2 [0.1, 0.3]; chance 0.05; p = 0.01"


def test_scaling_of_one_recording_and_of_many() -> None:
    one = {"NumberOfRecordings": 1, "NumberOfSubjects": 1, "NumberOfVolumes": 60, "Atlas": "A"}
    text = " ".join(scaling_sentences(one, {}))
    assert "of the recording itself" in text and "With one participant" in text
    many = {**one, "NumberOfRecordings": 3, "NumberOfSubjects": 2, "VolumesPerRecording": 200}
    text = " ".join(scaling_sentences(many, {}))
    assert "over 3 recordings of 2 participants (the first 200 volumes of each" in text
    assert "differences in amplitude between participants are preserved" in text
    runs = {**one, "NumberOfRecordings": 3}
    assert "are preserved" not in " ".join(scaling_sentences(runs, {}))
    # statistics of an earlier call lie in the folder, but others were given
    given = {"ScalingStatisticsGiven": True, "ScalingStatistics": "reference.tsv"}
    assert "reference.tsv" in scaling_sentences(many, given)[0]
    assert "not recorded" in scaling_sentences({}, {})[0]


@pytest.mark.parametrize("n_included", [0, 1, 2])
def test_the_page_of_few_recordings(tmp_path: Path, n_included: int) -> None:
    naming = _naming(tmp_path)
    rows = [
        {
            **{"participant_id": f"sub-{k}", "session_id": None, "task": "rest", "run": None},
            "recording": f"sub-{k}_task-rest",
            "status": "included" if k < n_included else "excluded",
            "reason": None,
            **{"mean_fd": 0.1 if k else None, "coverage": 0.5},
        }
        for k in range(2)
    ]
    _write(naming.path("group_recordings"), rows)
    files.write_json(naming.path("group_recordings", extension=".json"), {})
    page = build_group_report(tmp_path, naming.stem, "MNI", "A424", version="0").read_text()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    people = "participant" if n_included == 1 else "participants"
    assert f"{n_included} {people}: scaling." in text
    # an excluded recording is listed even if no reason is recorded
    assert ("Excluded, failed or incomplete" in text) == (n_included < 2)
    assert "1 participants" not in text and "1 recordings" not in text


def _cohort_of(folder: Path, n: int) -> Naming:
    """Recordings as the participant level left them, in the group's table of recordings."""
    made = write_outputs(folder, n, outliers=2)
    for name in ("sub-01", "sub-05"):
        (folder / f"{name}.html").write_text("<!DOCTYPE html><title>subject</title>")
    naming = Naming(str(folder), "group_task-rest", SPACE, ATLAS, "cohort")
    rows = [
        {
            **{"participant_id": stem.split("_")[0], "recording": stem, "task": "rest"},
            "status": "excluded" if k == 3 else "included",
            "reason": "mean FD of 2 mm, above 0.5" if k == 3 else None,
        }
        for k, stem in enumerate(made.stems)
    ]
    _write(naming.path("group_recordings"), rows)
    given = {"ScalingStatistics": "atlas-A424_desc-cohort_scaling.tsv, 12 recordings"}
    files.write_json(naming.path("group_recordings", extension=".json"), given)
    return naming


def test_the_table_of_recordings_marks_what_the_index_marks(tmp_path: Path) -> None:
    naming = _cohort_of(tmp_path, 14)
    rows = files.read_rows(naming.path("group_recordings"))
    table = gather_lines(naming, rows, [])
    assert [line.recording.stem for line in table.lines] == [row["recording"] for row in rows]
    summaries = {one.stem: one for one in gather_recordings(tmp_path)}
    expected = outliers([summaries[row["recording"]] for row in rows], table.measures)
    for line, reasons in zip(table.lines, expected, strict=True):
        own = summaries[line.recording.stem]
        for measure, cell in zip(table.measures, line.cells, strict=True):
            assert cell.value == own.values.get(measure.key)
            assert cell.reason == reasons.get(measure.key, "")
            assert bool(cell.mark) == bool(cell.reason)
    keys = [measure.key for measure in table.measures]
    assert table.lines[0].cells[keys.index("mean_fd")].mark == "▲", "2 mm were planted"
    assert [line.recording.href for line in table.lines][:2] == ["sub-01.html#task-rest", ""]
    assert [line.recording.stem for line in table.incomplete] == [rows[3]["recording"]]


def test_the_page_tells_how_it_came_to_be(tmp_path: Path) -> None:
    naming = _cohort_of(tmp_path, 12)
    logs = tmp_path / "logs"
    source = "sub-01/func/sub-01_task-rest_space-S_atlas-A424_desc-denoised_timeseries.tsv"
    for name, status, word in (
        ("20260102-100000_aaaaaaaa", "done", "first"),
        ("20260103-100000_bbbbbbbb", "cached", "again"),
    ):
        row = {"participant_id": "sub-01", "source": source, "status": status}
        skipped = {"participant_id": "group", "source": "decoding of x (m)", "status": "skipped"}
        _write(logs / f"{name}_status.tsv", [row, skipped])
        command = f"brainlm-bids bids out group --target {word}"
        files.write_json(logs / f"{name}_call.json", {"Command": command, "Version": "9.9"})
    page = build_group_report(tmp_path, naming.stem, SPACE, ATLAS, version="1.2.3").read_text()
    about = page.partition('<section id="about">')[2].partition("</section>")[0]
    assert "group --target first" in about and "1.2.3" in about and "brainlm-bids 9.9" in about
    assert "--target again" not in about, "a call that found everything done changes no page"
    assert "atlas-A424_desc-cohort_scaling.tsv, 12 recordings" in about
    assert "no commercial use" not in about, "no model has that licence"
    links = re.findall(r'href="\./(sub-[^"#]+)#([^"]+)"', page)
    assert ("sub-01.html", "task-rest") in links and ("sub-02.html", "task-rest") not in links
