"""Pages of the tools: sentences that agree with their tables, the same bytes, nothing lost."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tool_folders import (
    ATLAS,
    FOLDERS,
    R2,
    SCORES,
    SPACE,
    call,
    decoding_rows,
    errors,
    first_scores,
    forecast_folder,
    history,
    perturb_folder,
    pretrain_folder,
    write_table,
)

from brainlm_bids import files
from brainlm_bids.bids.calls import tool_calls
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.commands import brainlm as tools
from brainlm_bids.errors import UserError
from brainlm_bids.experiments.horizons import compared_errors, mean_errors
from brainlm_bids.notices import Kind, notice, to_json
from brainlm_bids.report.tools import finetune, horizons, page, perturb, pretrain
from brainlm_bids.report.tools.records import runs_of


class Words(HTMLParser):
    """The text of a page, how often each element opens, and the links and ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.texts: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.alts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.opened.append(tag)
        self.links += [given["href"] or ""] if "href" in given else []
        self.ids += [given["id"] or ""] if "id" in given else []
        self.alts += [given.get("alt") or ""] if tag == "img" else []

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def as_rows(columns: dict[str, list[Any]], folder: Path) -> list[dict[str, str]]:
    """A table as it is read back."""
    path = files.write_tsv(folder / "table.tsv", list(columns), list(columns.values()))
    return files.read_rows(path)


def made_horizons(
    r2: dict[str, float], n_subjects: int, folder: Path, seed: int = 0, untrained: Any = ()
) -> horizons.Horizons:
    tables = errors(r2, n_subjects, seed=seed)
    subjects = [f"sub-{k}" for k in range(n_subjects)]
    models = [name for name in r2 if name.startswith(("brainlm", "random"))]
    means = as_rows(mean_errors(tables, subjects, 0), folder)
    gains = as_rows(compared_errors(tables, subjects, models, 0), folder)
    (found,) = horizons.by_repetition_time(means, gains, {k: k for k in models}, untrained)
    return found


# --- forecasts -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_sentences_on_forecasts_agree_with_their_tables(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    r2 = {name: float(rng.uniform(-0.3, 0.5)) for name in R2}
    found = made_horizons(r2, 12, tmp_path, seed, ["randomtiny"])
    text = " ".join(horizons.claims(found, "brainlm13M"))
    names = {"median": "median of the context", "persistence": "persistence (last volume)",
             "autoregressive": "autoregression per parcel",
             "vector_autoregressive": "vector autoregression, ridge"}  # fmt: skip
    best = max(names, key=lambda name: found.mean(name) or -9.0)
    assert f"the best baseline is {names[best]} with" in text
    over = text.partition("Over all volumes ahead it is ")[2].partition(". ")[0]
    for name, words in names.items():
        line = next(
            one
            for one in found.gains
            if (one["predictor"], one["compared_with"], one["horizon"])
            == ("brainlm13M", name, "n/a")
        )
        low, high = float(line["low"]), float(line["high"])
        before = over.partition(words)[0]
        last = max(
            ("better than", "worse than", "not distinguishable from"),
            key=lambda verdict: before.rfind(verdict),
        )
        expected = (
            "better than" if low > 0 else "worse than" if high < 0 else "not distinguishable from"
        )
        assert last == expected, (name, over)
    above = sum(float(value) > 0.05 for value in found.of("brainlm13M", "r2") if value is not None)
    assert (
        f"At {above} of 4 volumes ahead its R² is above 0.05" if above else "At no volume"
    ) in text
    ahead = [found.gain("brainlm13M", best, str(k)) for k in range(1, 5)]
    better = sum(one is not None and one.low is not None and one.low > 0 for one in ahead)
    assert f"better than {names[best]} at {better} of 4" in text


def test_a_difference_is_that_of_the_same_recordings(tmp_path: Path) -> None:
    """Noise that all predictors share is in no interval of their difference."""
    tables = errors({"brainlm13M": 0.3, "autoregressive": 0.3}, 12)
    shared = np.random.default_rng(5).normal(0, 1, 12)
    for table, offset in zip(tables, shared, strict=True):
        for row in table:
            row["r2"] = offset + (0.01 if row["predictor"] == "brainlm13M" else 0.0)
    for name in ("median", "persistence", "vector_autoregressive"):
        for table in tables:
            table += [{**row, "predictor": name} for row in table[:4]]
    columns = compared_errors(tables, [f"sub-{k}" for k in range(12)], ["brainlm13M"], 0)
    rows = [dict(zip(columns, line, strict=True)) for line in zip(*columns.values(), strict=True)]
    for row in rows:
        gain = 0.01 if row["compared_with"] == "autoregressive" else 0.0
        assert row["r2_difference"] == pytest.approx(gain, abs=1e-9)
        assert row["low"] == pytest.approx(gain, abs=1e-9) == row["high"]
    assert [row["horizon"] for row in rows[:5]] == [1, 2, 3, 4, None]


def test_one_subject_decides_nothing(tmp_path: Path) -> None:
    text = " ".join(horizons.claims(made_horizons(R2, 1, tmp_path), "brainlm13M"))
    assert "With fewer than two subjects no difference can be tested" in text
    assert "better than" not in text and "worse than" not in text


def test_few_subjects_are_provisional_and_older_folders_say_what_is_missing(
    tmp_path: Path,
) -> None:
    few = made_horizons(R2, 4, tmp_path)
    assert "provisional" in " ".join(horizons.claims(few, "brainlm13M"))
    many = made_horizons(R2, 12, tmp_path)
    assert "provisional" not in " ".join(horizons.claims(many, "brainlm13M"))
    old = many._replace(gains=[])
    text = " ".join(horizons.claims(old, "brainlm13M"))
    assert "no table of comparisons" in text and "better than" not in text


def test_the_marked_row_has_the_largest_mean(tmp_path: Path) -> None:
    found = made_horizons(R2, 12, tmp_path)
    means = horizons.tables(found)[0]
    marked = [one.cells[0].text for one in means.rows if one.best]
    assert marked == ["vector autoregression, ridge"]
    values = [one.cells[3].value for one in means.rows]
    assert (
        max(v for v in values if v is not None)
        == next(r for r in means.rows if r.best).cells[3].value
    )


# --- perturbations ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "n_null", "said"),
    [
        (0.01, 999, "farther than random sets of parcels move it: 9 of 999 random sets move it"),
        (0.001, 999, "farther than random sets of parcels move it: 0 of 999 random sets move it"),
        (0.02, 99, "farther than random sets of parcels move it: 1 of 99 random sets moves it"),
        (0.5, 99, "not distinguishable from random sets of parcels: 49 of 99 random sets move it"),
    ],
)
def test_the_embedding_beside_random_sets(p: float, n_null: int, said: str, tmp_path: Path) -> None:
    run = runs_of(perturb_folder(tmp_path, p=p, n_null=n_null))[0]
    text = " ".join(perturb.sections(run)[0].claims)
    assert said in text


@pytest.mark.parametrize(
    ("lifted", "n_null", "said"),
    [
        (5, 999, "The predictions for 5 of 423 other parcels change more than with random sets"),
        (0, 9999, "The predictions for none of 423 other parcels change more than with random"),
        (0, 30, "the smallest p of a parcel is 0.032, so a single parcel cannot reach it"),
    ],
)
def test_parcels_beside_random_sets(lifted: int, n_null: int, said: str, tmp_path: Path) -> None:
    run = runs_of(perturb_folder(tmp_path, lifted=lifted, n_null=n_null))[0]
    section = perturb.sections(run)[0]
    assert said in " ".join(section.claims)
    marked = [one.cells[0].text for one in section.tables[2].rows if one.best]
    assert len(marked) == lifted
    by_network = {one.cells[0].text: one.cells[3].value for one in section.tables[0].rows}
    best = [one.cells[0].text for one in section.tables[0].rows if one.best]
    assert lifted == 0 or best == [max(by_network, key=lambda name: by_network[name] or 0)]


def test_changes_of_the_size_of_rounding_errors_are_no_result(tmp_path: Path) -> None:
    folder = perturb_folder(tmp_path)
    for path in folder.glob("*metrics.json"):
        sidecar = files.read_json(path)
        sidecar["Warnings"] = to_json([notice(Kind.ROUNDING_ONLY, "No prediction changes.")])
        files.write_json(path, sidecar)
    text = " ".join(perturb.sections(runs_of(folder)[0])[0].claims)
    assert "by more than rounding errors" in text and "change more than" not in text


@pytest.mark.parametrize(
    ("tool", "key"), [("forecast", "forecast_errors"), ("perturb", "perturbation")]
)
def test_recordings_of_other_calls_are_not_taken_for_tabled(
    tool: str, key: str, tmp_path: Path
) -> None:
    folder = FOLDERS[tool](tmp_path)
    for subject in ("sub-01", "sub-88"):
        naming = Naming(str(folder), f"{subject}_task-rest", SPACE, ATLAS)
        model = "brainlm13M" if tool == "perturb" else ""
        files.write_text(naming.path(key, model=model), "a\n1\n")
    (path,) = page.write_pages(folder)
    text = Words(path.read_text()).text
    assert "1 recording of this folder is in no table" in text and "sub-88_task-rest" in text
    assert "sub-01_task-rest," not in text


def test_how_random_sets_are_matched_is_said_with_numbers(tmp_path: Path) -> None:
    note = perturb.sections(runs_of(perturb_folder(tmp_path))[0])[0].notes[-1]
    assert (
        "matched for: number of parcels. The mean distance between the changed parcels is" in note
    )
    assert "is 24 mm, in the random sets 76 mm" in note and "`--match space`" in note


def test_without_random_sets_nothing_is_concluded(tmp_path: Path) -> None:
    folder = perturb_folder(tmp_path, n_null=0)
    for path in folder.glob("*.tsv"):
        rows = files.read_rows(path)
        hidden = {"z": "n/a", "p": "n/a", "q": "n/a"}
        write_table(path, [{k: hidden.get(k, v) for k, v in row.items()} for row in rows])
    text = " ".join(perturb.sections(runs_of(folder)[0])[0].claims)
    assert "without random sets, whether that is much is not known" in text
    assert "Without random sets, which predictions change" in text


# --- fine-tuning -----------------------------------------------------------------------------


def as_read(rows: list[dict[str, Any]], folder: Path) -> list[dict[str, str]]:
    return files.read_rows(write_table(folder / "table.tsv", rows))


@pytest.mark.parametrize(("p", "more"), [(0.01, True), (0.05, False), (0.4, False)])
def test_chance_is_that_of_shuffled_targets(p: float, more: bool, tmp_path: Path) -> None:
    text = " ".join(finetune.claims(as_read(decoding_rows(SCORES, p), tmp_path), {}))
    assert (", more than with shuffled targets" in text) == more
    assert (", not more than with shuffled targets" in text) != more


@pytest.mark.parametrize("seed", range(6))
def test_sentences_on_fine_tuning_agree_with_the_intervals(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    values = {name: (float(v := rng.uniform(-0.2, 0.8)), v - 0.1, v + 0.1) for name in SCORES}
    gains = {name: sorted(rng.uniform(-0.3, 0.3, 2)) for name in SCORES if name != "finetuned"}
    compared: dict[str, Any] = {
        ("baseline_mean" if name == "baseline" else name): {
            "Difference": float(np.mean(gain)), "Low": float(gain[0]), "High": float(gain[1]),
        }
        for name, gain in gains.items()
    }  # fmt: skip
    sidecar = {"Comparisons": {"Metric": "r2", **compared}}
    sentences = finetune.claims(as_read(decoding_rows(values, 0.01), tmp_path), sidecar)
    kinds = {
        "embedding_attentive_recording": "the unchanged model with the default readout",
        "connectivity_linear": "the best baseline",
        "untrained_attentive_recording": "the best untrained network",
        "baseline": "a predictor without information",
    }
    for name, words in kinds.items():
        low, high = gains[name]
        verdict = (
            "better than" if low > 0 else "worse than" if high < 0 else "not distinguishable from"
        )
        assert any(one.startswith(f"It is {verdict} {words}:") for one in sentences), name
    largest = max(values, key=lambda name: values[name][0])
    assert any(one.startswith("The largest R²") for one in sentences) == (largest != "finetuned")


def test_folds_and_learning_are_counted(tmp_path: Path) -> None:
    run = runs_of(FOLDERS["finetune"](tmp_path))[0]
    text = " ".join(finetune.sections(run)[0].claims)
    assert "MAE of the 2 test folds is 5–7; it is better than" in text and "in 1 of them" in text
    assert "In 1 of 2 folds the validation loss fell below" in text


# --- pretraining -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("r2", "ridge", "said"),
    [
        (0.4, 0.3, "is better than the best of them, ridge regression and time (0.300)"),
        (0.25, 0.3, "is worse than the best of them, ridge regression and time (0.300)"),
        (0.3, 0.3, "is as good as the best of them, ridge regression and time (0.300)"),
        (0.25, -1.0, "is better than the best of them, neighbours in time (0.200)"),
    ],
)
def test_the_network_beside_the_best_baseline(
    r2: float, ridge: float, said: str, tmp_path: Path
) -> None:
    curves = as_read(history([0.1, r2], ridge), tmp_path)
    assert said in " ".join(pretrain.claims(curves, {}, []))


@pytest.mark.parametrize(("first", "said"), [(0.0, "above"), (0.3, "below"), (0.2, "equal to")])
def test_the_network_beside_untrained_weights(first: float, said: str, tmp_path: Path) -> None:
    curves = as_read(history([0.1, 0.2]), tmp_path)
    start = {"untrained": as_read(first_scores(first), tmp_path)[0]}
    text = " ".join(pretrain.claims(curves, start, []))
    assert f"is {said} that of untrained weights" in text
    assert "The last epoch is the best one" in text
    curves = as_read(history([0.1, 0.2, 0.15]), tmp_path)
    assert "1 epoch after the best one did not improve it" in " ".join(
        pretrain.claims(curves, start, [])
    )


@pytest.mark.parametrize(
    ("done", "said"),
    [
        (4, "The training is complete: 4 epochs, and the best checkpoint was scored on the test"),
        (2, "The training is not complete: 2 of 4 epochs (step 6 of 12)."),
        (0, "No checkpoint has been saved yet."),
    ],
)
def test_where_a_training_stands(done: int, said: str, tmp_path: Path) -> None:
    folder = pretrain_folder(tmp_path, done=done)
    (path,) = page.write_pages(folder)
    text = Words(path.read_text()).text
    assert said in text
    stopped = "The last call was stopped (SIGTERM): this page shows what was complete by then."
    assert (stopped in text) == (done < 4)


# --- pages -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", FOLDERS)
def test_a_page_is_written_from_its_folder(
    tool: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = FOLDERS[tool](tmp_path / "results")
    assert tools.main(["report", str(folder)]) == 0
    path = folder / f"{tool}.html"
    assert capsys.readouterr().out == f"{path}\n"
    first = path.read_bytes()
    assert tools.main(["report", str(folder)]) == 0 and path.read_bytes() == first
    found = Words(first.decode())
    assert found.opened.count("h1") == 1 and found.opened.count("script") == 1
    assert len(found.ids) == len(set(found.ids))
    assert all(link[1:] in found.ids for link in found.links if link.startswith("#"))
    figures = [link for link in found.links if link.endswith(".svg")]
    assert all((folder / link).is_file() for link in figures) and all(found.alts)
    assert found.opened.count("img") == len(figures)
    assert f"brainlm {tool} 'OUT <1>' results" in found.text and "1.2.3" in found.text
    assert tool_calls(folder)[-1].started in found.text
    assert re.search(r"References", found.text)


def test_what_failed_is_said_and_escaped(tmp_path: Path) -> None:
    (path,) = page.write_pages(forecast_folder(tmp_path))
    assert "30 volumes &lt;b&gt;" in path.read_text()
    assert "1 of what was asked for failed" in Words(path.read_text()).text


def test_pages_of_two_tools_in_one_folder_lead_to_each_other(tmp_path: Path) -> None:
    FOLDERS["finetune"](tmp_path)
    pretrain_folder(tmp_path)
    first, second = page.write_pages(tmp_path)
    assert (first.name, second.name) == ("finetune.html", "pretrain.html")
    assert "./pretrain.html" in Words(first.read_text()).links
    assert "./finetune.html" in Words(second.read_text()).links
    # each has its own call
    assert "brainlm pretrain" not in Words(first.read_text()).text
    assert "brainlm finetune 'OUT" not in Words(second.read_text()).text


def test_a_page_leads_to_the_index_of_its_data_if_there_is_one(tmp_path: Path) -> None:
    results, out = forecast_folder(tmp_path / "results"), tmp_path / "OUT 1"
    record = files.read_json(results / "experiment.json")
    record["Parameters"]["input"] = str(out)
    files.write_json(results / "experiment.json", record)
    (path,) = page.write_pages(results)
    assert not any("index.html" in link for link in Words(path.read_text()).links)
    out.mkdir()
    (out / "index.html").write_text("index")
    page.write_pages(results)
    (link,) = [one for one in Words(path.read_text()).links if "index.html" in one]
    assert link == "./../OUT%201/index.html"


def test_a_folder_of_something_else_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tools.main(["report", str(tmp_path)]) == 1
    assert "holds no results of brainlm forecast, perturb, finetune or pretrain" in (
        capsys.readouterr().err
    )
    assert tools.main(["report", str(tmp_path / "none")]) == 1
    assert "no such folder" in capsys.readouterr().err


def test_a_page_that_fails_costs_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = forecast_folder(tmp_path)

    def fail(run: object) -> None:
        raise RuntimeError("a\nbroken page")

    monkeypatch.setitem(page._SECTIONS, "forecast", fail)
    with page.reported(folder, "forecast", ["brainlm", "forecast"]) as record:
        record["Failed"] = {}
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all("RuntimeError: a broken page" in line for line in lines)
    assert tool_calls(folder)[-1].outcome == "finished"


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [(UserError("no room"), "failed", "no room"), (KeyboardInterrupt(), "stopped", "Ctrl-C")],
)
def test_how_a_call_ended_is_recorded(
    error: BaseException, outcome: str, reason: str, tmp_path: Path
) -> None:
    folder = forecast_folder(tmp_path)
    with pytest.raises(type(error)), page.reported(folder, "forecast"):
        raise error
    last = tool_calls(folder)[-1]
    assert (last.outcome, last.reason) == (outcome, reason) and last.ended >= last.started
    text = Words((folder / "forecast.html").read_text()).text
    assert f"({reason})" in text and "The same command continues" in text


def test_a_call_that_was_killed_has_no_end(tmp_path: Path) -> None:
    folder = forecast_folder(tmp_path)
    call(folder, "forecast")
    paths = (folder / "logs").glob("*_call.json")
    path = max(paths, key=lambda one: files.read_json(one)["Started"])
    record = files.read_json(path)
    files.write_json(path, {k: v for k, v in record.items() if k not in ("Ended", "Outcome")})
    (made,) = page.write_pages(folder)
    assert "The last call has not ended, or is still at work" in Words(made.read_text()).text
