"""The page of a subject: each warning once, cards by limits, rank in the cohort, origin."""

import json
import re
import shutil
from pathlib import Path

import pytest
from synthetic_outputs import ATLAS, SPACE, write_outputs

from brainlm_bids.bids.calls import record_call
from brainlm_bids.bids.derivatives import OfParticipant
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.notices import Kind, Notice, notice, to_json
from brainlm_bids.report import standing
from brainlm_bids.report.index import rebuild_index
from brainlm_bids.report.page import recording_anchor
from brainlm_bids.report.ranks import rank
from brainlm_bids.report.recordings import gather_recordings
from brainlm_bids.report.standing import LEAST_OTHERS, MOST_DOTS, WIDTH, Cohort
from brainlm_bids.report.subject import build_report
from brainlm_bids.settings import Settings

SPACED = "space-S_atlas-A424"
MODEL = "model-m_desc-windows_embeddings"


def _run(folder: Path, stem: str, *warnings: Notice, models: tuple[Notice, ...] = ()) -> None:
    """A recording with a sidecar of its series and one of a model."""
    func = folder / stem.partition("_")[0] / "func"
    func.mkdir(parents=True, exist_ok=True)
    series = {"RepetitionTime": 2.0, "NumberOfVolumes": 60, "Warnings": to_json(warnings)}
    (func / f"{stem}_{SPACED}_desc-denoised_timeseries.json").write_text(json.dumps(series))
    about = {"Model": {"label": "m"}, "Warnings": to_json([*warnings, *models])}
    (func / f"{stem}_{SPACED}_{MODEL}.json").write_text(json.dumps(about))
    (func / f"{stem}_{SPACED}_{MODEL}.tsv").write_text("onset\tcls_0000\n0\t1\n")


def _boxes(text: str) -> dict[str, str]:
    """What each box of a warning is about: anchor -> the heading before it."""
    found, heading = {}, ""
    for match in re.finditer(
        r'<h[123][^>]*>(.*?)</h[123]>|<div class="box \w+" id="(warning-\d+)"', text
    ):
        heading = match[1] or heading
        if match[2]:
            found[match[2]] = heading
    return found


# --- warnings ------------------------------------------------------------------------------------


def test_each_warning_stands_once_in_the_part_that_it_is_about(tmp_path: Path) -> None:
    atlas = notice(Kind.APPROXIMATE_ATLAS, "Approximate.")
    of_run = notice(Kind.NO_T1W, "No T1w."), notice(Kind.TR_MISMATCH, "Two TRs."), atlas
    _run(tmp_path, "sub-01_task-a", *of_run, models=(notice(Kind.DEMO_MODEL, "Demo."),))
    text = build_report(tmp_path, "01", version="0").read_text()
    for sentence in ("Approximate.", "No T1w.", "Two TRs.", "Demo."):
        assert text.count(sentence) == 1, sentence
    places = _boxes(text)
    assert set(places.values()) == {"task a", "Registration", "Parcels", "BrainLM: m"}
    for anchor in places:
        # the summary and the recording lead to it
        assert text.count(f'href="#{anchor}"') == 2
    assert "2 warnings forbid interpretation, 2 ask for attention." in text
    assert text.count("What to do:") == 4


def test_what_several_recordings_share_stands_before_them_with_their_names(tmp_path: Path) -> None:
    atlas, demo = notice(Kind.APPROXIMATE_ATLAS, "Approximate."), notice(Kind.DEMO_MODEL, "Demo.")
    alone = notice(Kind.NO_T1W, "No T1w.")
    _run(tmp_path, "sub-01_task-a", atlas, alone, models=(demo,))
    _run(tmp_path, "sub-01_task-b", atlas, models=(demo,))
    _run(tmp_path, "sub-01_task-c", models=(demo,))
    text = build_report(tmp_path, "01", version="0").read_text()
    assert text.count("Approximate.") == text.count("Demo.") == text.count("No T1w.") == 1
    assert sorted(_boxes(text).values()) == [
        "Registration",
        *["Warnings of several recordings"] * 2,
    ]
    assert 'In <a href="#task-a">task a</a>, <a href="#task-b">task b</a>.' in text
    assert "In all 3 recordings." in text


def test_warnings_of_the_t1w_image_stand_with_it(tmp_path: Path) -> None:
    damaged = notice(Kind.T1W_DAMAGED, "Damaged.")
    for task in "ab":
        _run(tmp_path, f"sub-01_task-{task}", damaged)
    text = build_report(tmp_path, "01", version="0").read_text()
    assert list(_boxes(text).values()) == ["Anatomical"]


def test_warnings_of_later_versions_and_of_other_levels_have_a_place(tmp_path: Path) -> None:
    later = Notice("of_the_future", "catastrophe", "Unheard of.")
    cohort = notice(Kind.MIXED_SETTINGS, "Mixed.")
    # of a model that has no part on the page
    model = notice(Kind.DEMO_MODEL, "Demo.")
    _run(tmp_path, "sub-01_task-a", later, cohort)
    sidecar = next(tmp_path.glob("**/*denoised*.json"))
    values = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps(values | {"Warnings": to_json([later, cohort, model])}))
    for path in tmp_path.glob("**/*embeddings*"):
        path.unlink()
    text = build_report(tmp_path, "01", version="0").read_text()
    assert set(_boxes(text).values()) == {"task a"} and len(_boxes(text)) == 3
    assert "Of the future." in text


def test_a_text_that_begins_with_its_title_has_none(tmp_path: Path) -> None:
    _run(tmp_path, "sub-01_task-a", notice(Kind.NO_FIELDMAP, "No field map: the run has none."))
    text = build_report(tmp_path, "01", version="0").read_text()
    assert text.lower().count("no field map:") == 1 and "<b>No field map.</b>" not in text


def test_a_subject_without_warnings_is_told_so(tmp_path: Path) -> None:
    _run(tmp_path, "sub-01_task-a")
    assert "No warnings" in build_report(tmp_path, "01", version="0").read_text()


# --- where a recording lies ------------------------------------------------------------------


def test_ranks_in_words() -> None:
    assert rank(3, [1, 2, 3, 4, 5, 6]) == "lower than 3 of 5"
    assert rank(4, [1, 2, 3, 4, 5]) == "higher than 3 of 4"
    assert rank(0, [0, 0, 0, 0, 1]) == "lower than 1 of 4, the same in 3"
    assert rank(1, [0, 1]) == "the highest of 2"


def test_a_page_tells_where_its_recordings_lie_among_those_of_the_task(tmp_path: Path) -> None:
    made = write_outputs(tmp_path, 12, tasks=("rest", "movie"), outliers=1)
    recordings = gather_recordings(tmp_path)
    (restless,) = made.planted
    label = restless.partition("_")[0]
    text = build_report(tmp_path, label, version="0", cohort=Cohort(recordings)).read_text()
    assert "<b>2 mm</b>: the highest of 12" in text
    # the dots of a task are drawn once, and each recording marks its place on them
    dots = re.findall(r'<path id="(strip-rest-mean_fd)" d="(.*?)"', text)
    assert len(dots) == 1 and dots[0][1].count("M") == 12
    assert text.count('href="#strip-rest-mean_fd"') == 1
    assert text.count('href="#strip-movie-mean_fd"') == 1


def test_too_few_recordings_are_no_cohort(tmp_path: Path) -> None:
    write_outputs(tmp_path, LEAST_OTHERS)
    text = build_report(
        tmp_path, "01", version="0", cohort=Cohort(gather_recordings(tmp_path))
    ).read_text()
    assert "Where this recording lies" not in text


def test_strips_of_many_recordings_stay_small(tmp_path: Path) -> None:
    write_outputs(tmp_path, 300)
    shown = Cohort(gather_recordings(tmp_path)).scales("rest")
    assert len(shown) > 5
    for scale in shown:
        assert scale.dots.count("M") <= MOST_DOTS
        assert 0 <= scale.place(scale.values[0]) < scale.place(scale.values[-1]) <= WIDTH


def test_measures_of_image_quality_stand_below_their_figures(tmp_path: Path) -> None:
    (stem,) = write_outputs(tmp_path, 1).stems
    naming = Naming(str(tmp_path), stem, SPACE, ATLAS)
    naming.path("image_quality").write_text("tsnr\tefc\n61.3\t0.5\n")
    text = build_report(tmp_path, "01", version="0").read_text()
    rows = re.findall(r'<td class="key">(.*?)</td><td>(.*?)</td>', text)
    assert ("Temporal signal-to-noise ratio", "61.3") in rows
    assert ("Entropy focus criterion", "0.5") in rows
    assert '<h3 id="task-rest-image-quality">' in text


def test_numbers_of_the_correction_stand_with_the_registration(tmp_path: Path) -> None:
    _run(tmp_path, "sub-01_task-a")
    sidecar = next(tmp_path.glob("**/*denoised*.json"))
    correction = {
        "Method": "phase difference",
        "PhaseEncodingDirection": "j-",
        "DisplacedAgreement": 0.3,
        "DisplacedAgreementUncorrected": 0.6,
        "DisplacedAgreementReversed": 0.2,
    }
    values = json.loads(sidecar.read_text()) | {"DistortionCorrection": correction}
    sidecar.write_text(json.dumps(values))
    text = build_report(tmp_path, "01", version="0").read_text()
    part = text[text.index('id="task-a-registration"') : text.index('id="task-a-parcels"')]
    assert "<td>phase difference</td>" in part
    assert "<strong>! 0.3</strong></td><td>0.6 without the correction, 0.2 with its reverse" in part


def test_a_recording_is_marked_on_the_map_of_the_group_level(tmp_path: Path) -> None:
    write_outputs(tmp_path, 6)
    naming = Naming(str(tmp_path), "group_task-rest", "S", "A424", "cohort")
    path = naming.path("group_map", model="m")
    points = [(0, 0), (1, 0), (0, 1), (-1, 0), (0, -1), (9, 0)]
    rows = [f"sub-{k:02d}_task-rest\t{x}\t{y}" for k, (x, y) in enumerate(points, start=1)]
    path.write_text("\n".join(["recording\tembedding_pca_1\tembedding_pca_2", *rows]) + "\n")
    how = {"Maps": {"embedding_pca": {"VarianceOfAxes": [0.5, 0.2]}}}
    path.with_suffix(".json").write_text(json.dumps(how))
    text = build_report(tmp_path, "06", version="0").read_text()
    dots = re.search(r'<path id="(map-[^"]*)" d="(.*?)"', text)
    assert dots is not None and dots[2].count("M") == 6
    assert f'<use href="#{dots[1]}"/><path class="here" d="M960 500h0"/>' in text
    assert "distance from the middle: the largest of 6" in text


# --- sessions ------------------------------------------------------------------------------------


def test_a_hundred_recordings_are_grouped_by_session_and_load_lazily(tmp_path: Path) -> None:
    tasks = [f"t{k:02d}" for k in range(20)]
    made = write_outputs(tmp_path, 1, sessions=("a", "b", "c", "d", "e"), tasks=tasks, figures=True)
    page = build_report(tmp_path, "01", version="0")
    text = page.read_text()
    assert text.count('<details class="session">') == 5
    for stem in made.stems:
        assert f'<section id="{recording_anchor(stem)}" data-recording="{stem}">' in text
        assert f'<a href="#{recording_anchor(stem)}">' in text
    pictures = re.findall(r"<img [^>]*>", text)
    assert len(pictures) > 500 and all('loading="lazy"' in one for one in pictures)
    assert all('width="40" height="20"' in one for one in pictures)
    assert "<object" not in text
    identifiers = re.findall(r' id="(.*?)"', text)
    assert len(identifiers) == len(set(identifiers))
    links = set(re.findall(r'href="#(.*?)"', text))
    assert links <= set(identifiers), "links within the page lead somewhere"
    assert page.stat().st_size / len(made.stems) < 35_000


# --- about ---------------------------------------------------------------------------------------


def _called(folder: Path, name: str, *stems: str, status: str = "done", **settings: object) -> None:
    bids, out = Path("/data/ds one"), Path("/data/out")
    made = Settings(bids_dir=bids, output_dir=out, **settings)  # type: ignore[arg-type]
    record_call(folder, name, ["brainlm-bids", str(bids), str(out), "participant"], made.to_toml())
    columns = ("participant_id", "task", "source", "status")
    rows = [("sub-01", s.split("task-")[1], f"sub-01/func/{s}_bold.nii.gz", status) for s in stems]
    lines = ["\t".join(row) for row in (columns, *rows)]
    (folder / "logs" / f"{name}_status.tsv").write_text("\n".join(lines) + "\n")


def _about(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", text[text.index('<section id="about">') :]))


def test_about_tells_the_calls_and_what_they_changed(tmp_path: Path) -> None:
    for task in "ab":
        _run(tmp_path, f"sub-01_task-{task}")
    phenotype = Path("/data/ds one/phenotype/ages.tsv")
    _called(tmp_path, "20260102-030405_aaaa", "sub-01_task-a", high_pass=128.0, nprocs=8)
    _called(tmp_path, "20260203-040506_bbbb", "sub-01_task-b", phenotype=phenotype)
    _called(tmp_path, "20260304-050607_cccc", "sub-01_task-a", "sub-01_task-b", status="cached")
    page = build_report(tmp_path, "01", version="0")
    about = _about(page.read_text())
    assert "Processed on 2026-01-02 03:04:05" in about and "Processed on 2026-02-03" in about
    assert "2026-03-04" not in about, "a call that computed nothing made nothing"
    assert "brainlm-bids '/data/ds one' /data/out participant" in about.replace("&#39;", "'")
    assert "--high-pass 128.0 (default: 100.0)" in about
    assert "--phenotype phenotype/ages.tsv (default: none)" in about, "relative to the data set"
    assert "--nprocs" not in about and "--low-pass" not in about
    assert re.search(r"03:04:05\S*: task a ", about) and re.search(r"04:05:06\S*: task b ", about)
    before = page.read_bytes()
    assert build_report(tmp_path, "01", version="0").read_bytes() == before


def test_about_tells_the_inputs_and_where_they_differ(tmp_path: Path) -> None:
    for task, version in (("a", "23.1.4"), ("b", "25.0.0")):
        _run(tmp_path, f"sub-01_task-{task}")
        (sidecar,) = tmp_path.glob(f"**/*task-{task}*denoised*.json")
        values = {
            "Sources": [f"bids:raw:sub-01/func/sub-01_task-{task}_bold.nii.gz", "/secret/x.nii.gz"],
            "InputData": {"Kind": "fMRIPrep", "Version": version, "Space": "MNI152NLin6Asym"},
            "Atlas": {"Name": "A424", "SHA256": "a" * 64},
            "Template": {"Name": "MNI152NLin6Asym"},
            "SoftwareVersions": {"Python": "3.11.7", "numpy": "2.3.5" if task == "a" else "2.4.0"},
            "GeneratedBy": {"Name": "brainlm-bids", "Version": "0.1"},
        }
        sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | values))
    model = next(tmp_path.glob("**/*task-a*embeddings.json"))
    about = {"label": "m", "sha256": "b" * 64, "source": "Hugging Face"}
    model.write_text(json.dumps({"Model": about}))
    text = _about(build_report(tmp_path, "01", version="0").read_text())
    assert "sub-01/func/sub-01_task-a_bold.nii.gz data set raw (task a)" in text
    assert "/secret" not in text, "no path of the machine"
    assert "fMRIPrep 23.1.4 BOLD in MNI152NLin6Asym space (task a)" in text
    assert f"A424 sha256 {'a' * 64}Template" in text.replace(" Template", "Template")
    assert f"m Hugging Face sha256 {'b' * 64} (task a)" in text
    assert "Python3.11.7 " in text and "2.4.0 (task b)" in text


def test_what_was_not_recorded_is_said(tmp_path: Path) -> None:
    _run(tmp_path, "sub-01_task-a")
    _called(tmp_path, "20260102-030405_aaaa", "sub-01_task-a")
    for path in (tmp_path / "logs").glob("*_call.json"):
        path.unlink()
    about = _about(build_report(tmp_path, "01", version="0").read_text())
    assert "Commandnot recorded" in about and "2026-01-02 03:04:05" in about
    shutil.rmtree(tmp_path / "logs")
    assert "Processed on" not in _about(build_report(tmp_path, "01", version="0").read_text())


# --- what failed -----------------------------------------------------------------------------


def test_recordings_that_failed_are_in_the_overview_and_lead_nowhere(tmp_path: Path) -> None:
    _run(tmp_path, "sub-01_task-a", notice(Kind.NO_T1W, "No T1w."))
    _called(tmp_path, "20260102-030405_aaaa", "sub-01_task-a")
    _called(tmp_path, "20260102-030406_aaaa", "sub-01_task-b", status="failed")
    text = build_report(tmp_path, "01", version="0").read_text()
    table = re.search(r'<table class="overview".*?</table>', text, re.DOTALL)
    assert table is not None
    assert '<a href="#task-a">task a</a>' in table[0] and "sub-01_task-b" in table[0]
    assert text.count("failed") >= 2 and "1 failed or skipped" in text


def test_others_come_from_the_index_and_the_subject_from_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (restless,) = write_outputs(tmp_path, 8, outliers=1).planted
    rebuild_index(tmp_path, version="0")
    lines = (tmp_path / "index.tsv").read_text().splitlines()
    place = lines[0].split("\t").index("mean_fd")
    rows = [line.split("\t") for line in lines]
    for row in rows:
        if row[0] == restless:
            row[place] = "0.01"  # of an earlier call
    (tmp_path / "index.tsv").write_text("\n".join("\t".join(row) for row in rows) + "\n")
    read: list[str] = []
    gather = standing.gather_recordings

    def counted(out: Path, selection: OfParticipant, rows: dict) -> list:
        read.extend(selection.participant_label)
        return gather(out, selection, rows)

    monkeypatch.setattr(standing, "gather_recordings", counted)
    text = build_report(tmp_path, "01", version="0").read_text()
    assert "<b>2 mm</b>: the highest of 8" in text
    assert read == ["01"], "the files of others are not read"
