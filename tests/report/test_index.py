"""The index: every recording a row, the same whoever writes it and in whatever order."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from synthetic_outputs import (
    FAILED,
    SKIPPED,
    Synthetic,
    status_row,
    write_outputs,
)

from brainlm_bids import files
from brainlm_bids.report import index
from brainlm_bids.report.index import note_call, rebuild_index, update_index
from brainlm_bids.report.index_page import PART, build_page
from brainlm_bids.report.index_table import from_row, read_table, to_row
from brainlm_bids.report.measures import measure, outliers
from brainlm_bids.report.recordings import RecordingSummary, gather_recordings, measures_of
from brainlm_bids.report.strips import AXIS, ROOM, WIDTH, strip

FILES = ("index.html", "index.tsv", "index.json")


class _Page(HTMLParser):
    """The tags of a page with their attributes, and the cells of its largest table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        self._cell = tag in ("td", "th") or (self._cell and tag != "tr")
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.rows[-1][-1] += data

    def of(self, tag: str, name: str) -> list[str]:
        return [unquote(found) for kind, a in self.tags if kind == tag and (found := a.get(name))]


def _bytes(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture
def made(tmp_path: Path) -> Synthetic:
    done = write_outputs(tmp_path / "out", 12, sessions=("1", "2"), failed=1, skipped=1, outliers=2)
    for label in ("01", "02", "13"):
        (done.folder / f"sub-{label}.html").write_text("<!-- places --><!-- /places -->")
    return done


# --- the files ---------------------------------------------------------------------------------


def test_the_jobs_of_an_array_write_the_index_that_is_made_at_once(
    made: Synthetic, tmp_path: Path
) -> None:
    """One subject after another, in two orders, some entered by the call of another."""
    rebuild_index(made.folder, version="1")
    whole = _bytes(made.folder)
    subjects = sorted({stem.split("_")[0] for stem in [*made.stems, *made.failed, *made.skipped]})
    rows = {row["recording"]: row for row in files.read_rows(next(made.folder.glob("logs/*.tsv")))}
    for seed in (0, 1):
        out = tmp_path / f"array-{seed}"
        out.mkdir()
        shutil.copy(made.folder / "dataset_description.json", out)
        order = np.random.default_rng(seed).permutation(len(subjects))
        for turn, place in enumerate(order):
            subject = subjects[place]
            if (made.folder / subject).is_dir():
                shutil.copytree(made.folder / subject, out / subject)
                for record in made.folder.glob(f"logs/records/{subject}_*"):
                    (out / "logs" / "records").mkdir(parents=True, exist_ok=True)
                    shutil.copy(record, out / "logs" / "records")
            page = made.folder / f"{subject}.html"
            if page.is_file():
                shutil.copy(page, out)
            own = [row for row in rows.values() if row["participant_id"] == subject]
            own = [{k: None if v == "n/a" else v for k, v in row.items()} for row in own]
            note_call(out, f"2026_{turn:02d}", [subject], own)
            if turn % 3 or turn == len(order) - 1:
                update_index(out, [subject], version="1")
        assert _bytes(out) == whole, seed
        assert not list((out / "logs" / "index").iterdir())


def test_a_call_replaces_the_rows_of_its_subjects_alone(
    made: Synthetic, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = made.folder
    rebuild_index(out, version="1")
    before = {one.stem: one for one in read_table(out) or []}
    sidecar = next(out.glob("sub-03/ses-1/func/*desc-denoised_timeseries.json"))
    values = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**values, "RegistrationCost": 0.7654321}))
    asked: list[object] = []
    gather = gather_recordings

    def watched(folder: Path, selection: object = None, rows: object = None) -> object:
        asked.append(selection)
        return gather(folder, selection, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(index, "gather_recordings", watched)
    row = status_row("sub-03_ses-2_task-rest", "failed", "a\tdisk  is\nfull", "logs/crash/x.txt")
    note_call(out, "2027_a", ["sub-03"], [row])
    update_index(out, ["sub-03"], version="1")
    after = {one.stem: one for one in read_table(out) or []}
    assert [one.participant_label for one in asked] == [("03",)], "no other sidecar is read"
    changed = {stem for stem in after if after[stem] != before[stem]}
    assert changed == {"sub-03_ses-1_task-rest", "sub-03_ses-2_task-rest"}
    failed = after["sub-03_ses-2_task-rest"]
    assert (failed.status, failed.reason) == ("failed", "a disk is full")
    assert after[made.failed[0]].reason == FAILED, "known from the table alone"
    # a note that changes nothing writes nothing
    times = [(out / name).stat().st_mtime_ns for name in FILES]
    note_call(out, "2027_b", ["sub-05"], [status_row("sub-05_ses-1_task-rest", "cached")])
    update_index(out, ["sub-05"], version="1")
    assert [(out / name).stat().st_mtime_ns for name in FILES] == times


def test_a_table_of_another_version_or_a_broken_one_is_made_anew(made: Synthetic) -> None:
    out = made.folder
    rebuild_index(out, version="1")
    whole = _bytes(out)
    for name, content in (("index.json", "{}"), ("index.tsv", "recording\tx\na\n")):
        (out / name).write_text(content)
        note_call(out, "2027_a", ["sub-01"])
        (out / "logs" / "index" / "2027_b.json").write_text("{broken")
        update_index(out, ["sub-01"], version="1")
        assert _bytes(out) == whole


def test_a_call_that_was_stopped_is_entered_by_the_next(made: Synthetic) -> None:
    out = made.folder
    rebuild_index(out, version="1")
    note_call(out, "2027_a", ["sub-01"], [status_row("sub-01_ses-1_task-rest", "failed", "ended")])
    assert b"ended" not in (out / "index.html").read_bytes()
    note_call(out, "2027_b", ["sub-02"], [status_row("sub-02_ses-1_task-rest", "cached")])
    update_index(out, ["sub-02"], version="1")
    assert b"ended" in (out / "index.html").read_bytes()


def test_others_that_hold_the_lock_too_long_cost_no_note(
    made: Synthetic, monkeypatch: pytest.MonkeyPatch
) -> None:
    from filelock import FileLock

    monkeypatch.setattr(index, "PATIENCE", 0.05)
    note_call(made.folder, "2027_a", ["sub-01"])
    with FileLock(made.folder / "logs" / ".index.lock"), pytest.raises(TimeoutError):
        update_index(made.folder, ["sub-01"], version="1")
    assert (made.folder / "logs" / "index" / "2027_a.json").is_file()
    update_index(made.folder, ["sub-01"], version="1")
    assert (made.folder / "index.html").is_file()


def test_pages_lead_to_the_index_and_bids_ignores_it(made: Synthetic) -> None:
    note_call(made.folder, "2027_a", ["sub-01"])
    update_index(made.folder, ["sub-01"], version="1")
    for label in ("01", "02", "13"):
        assert "./index.html" in (made.folder / f"sub-{label}.html").read_text()
    assert "index.*" in (made.folder / ".bidsignore").read_text().split()


def test_the_table_describes_its_columns(made: Synthetic) -> None:
    rebuild_index(made.folder, version="1")
    rows = files.read_rows(made.folder / "index.tsv")
    about = files.read_json(made.folder / "index.json")
    assert all(about[name]["Description"] for name in rows[0])
    assert about["mean_fd"]["Units"] == "mm" and "1.5 interquartile" in about["OutlierRule"]
    assert about["registration_cost"]["Limit"] == {"Maximum": 0.8}
    assert about["registration_cost"]["LimitWithoutT1w"] == {"Maximum": 0.86}
    by_name = {row["recording"]: row for row in rows}
    for stem, key in made.planted.items():
        assert key in by_name[stem]["outliers"].split(",")
    failed = by_name[made.failed[0]]
    assert (failed["status"], failed["reason"], failed["mean_fd"]) == ("failed", FAILED, "n/a")


def test_a_row_is_read_as_it_was_written() -> None:
    one = RecordingSummary(
        *("sub-1_ses-a_task-b_run-2", "sub-1", "ses-a", "b", "2", "S", "A", "failed", "x # y"),
        *("logs/c.txt", "excluded", "z"),
        values={"registration_cost": 0.1234567, "r2_m_masked12p5_ridge": -1e-7},
        warnings=("no_t1w", "of_a_later_version"),
        normalised="boldref",
        page="sub-1.html",
        section="ses-a_task-b_run-2",
        thumbnail="sub-1/figures/a.png",
    )
    assert from_row(to_row(one)) == one
    assert from_row(to_row(RecordingSummary("sub-1"))) == RecordingSummary("sub-1")


# --- the page ----------------------------------------------------------------------------------


def test_the_page_shows_every_recording_and_leads_to_its_report(made: Synthetic) -> None:
    path = rebuild_index(made.folder, version="1.2.3")
    text = path.read_text()
    page = _Page(text)
    rows = {row[0]: row for row in page.rows if row and row[0].startswith("sub-")}
    assert sorted(rows) == sorted([*made.stems, *made.failed, *made.skipped])
    assert rows[made.failed[0]][2] == f"failed {FAILED}"
    assert rows[made.skipped[0]][2] == f"skipped {SKIPPED}"
    heading = next(row for row in page.rows if "Recording" in row)
    column = heading.index("Mean FD (mm)")
    for one in gather_recordings(made.folder):
        shown = rows[one.stem][column]
        value = one.values.get("mean_fd")
        assert shown == ("–" if value is None else f"{value:.3g}")
    first = made.stems[0]
    assert rows[first][3] == "Mean FD" and rows[made.stems[1]][4] == "suspect registration"
    links = page.of("a", "href")
    assert f"./sub-01.html#{first.removeprefix('sub-01_')}" in links
    assert "./sub-13.html#errors" in links, "of a failed one, to its reason"
    pictures = page.of("img", "src")
    assert len(pictures) == len(made.stems)
    assert all((made.folder / name).is_file() for name in pictures)
    assert all(a["loading"] == "lazy" for tag, a in page.tags if tag == "img")
    assert "<strong>1</strong> failed" in text and "1.2.3" in text and "1.5 interquartile" in text
    assert "Bad volumes: 0 in all 24 recordings." in text, "no strip, and no column"
    assert "Bad volumes" not in heading


def test_a_model_stands_beside_the_best_of_its_baselines(made: Synthetic) -> None:
    page = _Page(rebuild_index(made.folder, version="1").read_text())
    heading = next(row for row in page.rows if "Recording" in row)
    row = next(row for row in page.rows if row and row[0] == made.stems[5])
    own = float(row[heading.index("R² brainlm111M")])
    best = row[heading.index("Best baseline")]
    assert best.split(" ", 1)[1] == "ridge time"
    assert float(best.split()[0]) == pytest.approx(own + 0.12, abs=2e-3)


def test_names_and_reasons_from_the_data_do_not_run(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'&"
    recordings = [
        RecordingSummary(
            f"sub-1_task-{evil}",
            "sub-1",
            task=evil,
            status="failed",
            reason=evil,
            warnings=(evil,),
            values={"mean_fd": 0.1, "registration_cost": value},
            crash_file=evil,
            thumbnail=evil,
            page="sub-1.html",
            section=evil,
            cohort=evil,
        )
        for value in (0.5, 0.9)
    ]
    about = {"Name": evil, "GeneratedBy": [{"Name": evil}]}
    (tmp_path / "dataset_description.json").write_text(json.dumps(about))
    text = build_page(tmp_path, recordings, version=evil)
    assert text.count("<script>") == 1, "that of the page"
    assert not re.search(r"<[^>]*\son\w+=", text)
    assert text.count("&lt;script&gt;alert(1)") > 6


def test_a_folder_without_recordings_or_with_one_has_a_page(tmp_path: Path) -> None:
    assert "0 recordings of 0 participants" in build_page(tmp_path, [], version="1")
    write_outputs(tmp_path, 1)
    text = rebuild_index(tmp_path, version="1").read_text()
    assert "1 recording of 1 participant" in text and "in the only recording" in text
    assert "Mean FD (mm)" in text
    series = gather_recordings(tmp_path)
    nothing = replace(series[0], values={}, thumbnail="")
    assert "<svg" not in build_page(tmp_path, [nothing, nothing], version="1")


def test_the_cohorts_exclusions_and_several_atlases_have_columns(tmp_path: Path) -> None:
    one = RecordingSummary("sub-1_task-a", "sub-1", space="S", atlas="A424", cohort="included")
    other = replace(one, atlas="A424approx", cohort="excluded", cohort_reason="moved too far")
    text = build_page(tmp_path, [one, other], version="1")
    heading, *rows = [row for row in _Page(text).rows if row][:3]
    assert heading[:5] == ["Recording", "Status", "Marked", "Warnings", "Rating"]
    assert heading[5:7] == ["Cohort", "Atlas"]
    assert rows[1][5:7] == ["excluded moved too far", "A424approx in S"]


def test_a_long_table_is_laid_out_in_parts(tmp_path: Path) -> None:
    many = [
        RecordingSummary(f"sub-{k:03d}_task-a", f"sub-{k:03d}", values={"mean_fd": 0.1 + k})
        for k in range(2 * PART + 1)
    ]
    text = build_page(tmp_path, many, version="1")
    assert [int(n) for n in re.findall(r'<tbody style="--rows: (\d+)">', text)] == [PART, PART, 1]


# --- strips ------------------------------------------------------------------------------------


def _dots(path: str) -> np.ndarray:
    return np.array([[int(a), int(b)] for a, b in re.findall(r"M(\d+) (\d+)h0", path)])


def test_a_strip_has_a_dot_for_every_number_where_it_belongs() -> None:
    values = np.random.default_rng(3).normal(0.12, 0.02, 300)
    rows = [RecordingSummary(f"sub-{k}", values={"mean_fd": v}) for k, v in enumerate(values)]
    rows.insert(7, RecordingSummary("sub-without"))
    marked = [k == 20 for k in range(len(rows))]
    drawn = strip(measure("mean_fd"), rows, marked)
    assert drawn is not None
    dots = _dots(drawn.dots)
    assert len(dots) == 300 and len(_dots(drawn.marked)) == 1
    assert _dots(drawn.marked)[0].tolist() == dots[19].tolist(), "one has no number"
    ticks = np.array([[x, float(text.replace("−", "-"))] for x, text in drawn.ticks])
    scale = np.polyfit(ticks[:, 0], ticks[:, 1], 1)
    assert np.polyval(scale, dots[:, 0]) == pytest.approx(values, abs=abs(scale[0]))
    assert np.polyval(scale, drawn.median) == pytest.approx(np.median(values), abs=abs(scale[0]))
    assert (dots[:, 0] >= ROOM).all() and (dots[:, 0] <= WIDTH - ROOM).all()
    assert (dots[:, 1] > 0).all() and (dots[:, 1] < AXIS).all()
    assert len(np.unique(dots, axis=0)) > 280, "dots hardly hide one another"
    assert drawn.place(float(values[0])) == dots[0, 0]


def test_a_wild_number_does_not_squeeze_the_others_and_is_told() -> None:
    values = [*np.linspace(0.1, 0.2, 40), 30.0]
    rows = [RecordingSummary(f"sub-{k}", values={"mean_fd": v}) for k, v in enumerate(values)]
    drawn = strip(measure("mean_fd"), rows, [False] * 41)
    assert drawn is not None and drawn.beyond == "1 at the right edge lies beyond the axis"
    dots = _dots(drawn.dots)
    assert dots[-1, 0] == WIDTH - ROOM
    assert np.ptp(dots[:-1, 0]) > 100


def test_limits_are_drawn_near_the_numbers_and_told_always() -> None:
    rows = [
        RecordingSummary(f"sub-{k}", values={"registration_cost": 0.5 + 0.01 * k})
        for k in range(20)
    ]
    drawn = strip(measure("registration_cost"), rows, [False] * 20)
    assert drawn is not None and drawn.limits == "below 0.8"
    (left, width) = drawn.bad[0]
    assert left == drawn.place(0.8) and left + width == WIDTH - ROOM
    assert drawn.fences == (drawn.place(0.5 + 0.01 * (14.25 + 1.5 * 9.5)),)
    both = [*rows, replace(rows[0], normalised="boldref")]
    drawn = strip(measure("registration_cost"), both, [False] * 21)
    assert drawn is not None and "below 0.8, without a T1w image below 0.86" in drawn.limits
    assert drawn.bad[0][0] == drawn.place(0.86), "shaded is what is beyond both"


def test_every_shown_measure_of_ordinary_recordings_is_hardly_marked(tmp_path: Path) -> None:
    """A rule that marks many ordinary recordings would be ignored."""
    write_outputs(tmp_path, 60)
    recordings = gather_recordings(tmp_path)
    marked = outliers(recordings, measures_of(recordings))
    assert sum(len(reasons) for reasons in marked) <= 20
