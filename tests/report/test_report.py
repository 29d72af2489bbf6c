"""Report pages: they state what the files hold, repeat byte for byte, and run nothing."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest

from brainlm_bids.bids.outputs import Naming, figure_table
from brainlm_bids.notices import Kind, notice, to_json
from brainlm_bids.parcels import N_PARCELS
from brainlm_bids.report import contents, figure_files, model_facts, references, status
from brainlm_bids.report.group import build_group_report
from brainlm_bids.report.subject import build_report
from brainlm_bids.resources import WEIGHTS_LICENCE

RUN = "sub-01_task-rest_run-1"
SPACE = "MNI152NLin6Asym"
SPACED = f"{RUN}_space-{SPACE}_atlas-A424"
GROUP = "group_task-rest"
TR = 2.0
T = 60
STATUS = (
    "participant_id\tsession_id\ttask\trun\tsource\tstatus\treason\tseconds\tpeak_memory_mb\t"
    "crash_file\n"
)


# --- the page ----------------------------------------------------------------------------------


class _Page(HTMLParser):
    """What a browser would see: tags with their attributes, and the text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"

    def figures(self) -> list[str]:
        return [unquote(a["src"] or "") for tag, a in self.tags if tag == "img"]

    def boxes(self, level: str) -> int:
        return sum(a.get("class") == f"box {level}" for tag, a in self.tags if tag == "div")


def _cards(path: Path) -> dict[str, str]:
    found = re.findall(
        r"<dt>(.*?)</dt><dd[^>]*>(.*?)(?:<small>(.*?)</small>)?</dd>", path.read_text()
    )
    return {label: f"{value} | {note}" for label, value, note in found}


def _tsv(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, sep="\t", index=False, na_rep="n/a")


def _json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A folder of derivatives with every file that the report reads."""
    func = tmp_path / "sub-01" / "func"
    rows = [
        {"component": k + 1, "variance": 0.1 * (k + 1), "classification": c}
        for k, c in enumerate(["noise", "signal", "noise", "signal"])
    ]
    _tsv(func / f"{RUN}_desc-aroma_metrics.tsv", rows)
    coverage = [
        {"index": i + 1, "name": f"P{i + 1}", "fraction": [0.0, 0.25, 1.0][min(i, 2)]}
        for i in range(N_PARCELS)
    ]
    _tsv(func / f"{SPACED}_desc-coverage_metrics.tsv", coverage)
    _json(
        func / f"{SPACED}_desc-denoised_timeseries.json",
        {
            "RepetitionTime": TR,
            "NumberOfVolumes": T,
            "DummyVolumes": 3,
            "MeanFramewiseDisplacement": 0.11,
            "MaximumTranslation": 0.25,
            "MaximumRotation": 0.5,
            "MotionOutliers": 2,
            "Coregistration": "boundary",
            "RegistrationContrast": 2.7,
            "RegistrationCost": 0.62,
            "TemplateDice": 0.981,
            "StandardDeviationDemeaned": 20.8,
            "Atlas": "A424",
            "MinimumParcelCoverage": 0.5,
        },
    )
    _json(
        func / f"{SPACED}_desc-robust_timeseries.json",
        {"FilledParcels": ["P1"], "StandardDeviationRobust": 1.66, "Warnings": ["Mind the gap."]},
    )
    model = {"label": "brainlm13M", "family": "brainlm_mae", "sha256": "0123abcd" * 8}
    _json(func / f"{SPACED}_model-brainlm13M_desc-windows_embeddings.json", {"Model": model})
    _tsv(
        func / f"{SPACED}_model-brainlm13M_desc-windows_embeddings.tsv",
        [{"onset": 0, "cls_0000": 1.0}] * 3,
    )
    scores = {"model": 0.4125, "parcel_mean": -0.01, "ridge": 0.5217}
    metrics = [
        {"mask_ratio": 0.2, "predictor": p, "mse": 0.5875, "r2": r, "n_windows": 3}
        for p, r in scores.items()
    ]
    _tsv(func / f"{SPACED}_model-brainlm13M_desc-reconstruction_metrics.tsv", metrics)
    pictures = tmp_path / "sub-01" / "figures"
    pictures.mkdir()
    for name in ("desc-motion", "desc-coreg", "model-brainlm13M_desc-networks"):
        (pictures / f"{RUN}_{name}_bold.svg").write_text("<svg/>")
    (pictures / "sub-01_desc-norm_T1w.svg").write_text("<svg/>")
    return tmp_path


def test_the_page_states_the_numbers_of_the_files(output: Path) -> None:
    path = build_report(output, "sub-01", version="1.2.3")
    assert path == output / "sub-01.html"
    cards = _cards(path)
    assert cards["Repetition time"] == "2 s | "
    assert cards["Volumes"] == f"{T} | 2.0 min"
    assert cards["Dummy volumes"].startswith("3 |")
    assert cards["Mean framewise displacement"] == "0.11 mm | "
    assert cards["Largest translation"] == "0.25 mm | "
    assert cards["Largest rotation"] == "0.5° | "
    assert cards["Motion outliers"].startswith("2 |")
    assert cards["Noise components"] == "2 of 4 | 40 % of the components’ variance"
    assert cards["Parcels covered"] == "423 of 424 | 1 of them by less than half"
    assert cards["Parcels hardly covered"] == "1 | covered by less than 50 %: n/a in the series"
    assert cards["Parcels without data"].startswith("1 |")
    assert cards["SD of the parcel series"].startswith("20.8 | 0.50 × that of")
    assert cards["SD of the scaled series"].startswith("1.66 | 2.00 × that of")
    page = _Page(path)
    assert "Parcels without data (1) P1. They have no data" in page.text
    assert "P1 (0.00), P2 (0.25)" in page.text
    assert "0.2 ridge 0.5875 n/a 0.5217 n/a 3" in page.text
    assert "better than the parcel mean, but not better than ridge regression" in page.text
    assert "0123abcd" * 8 in page.text and "CC BY-NC-ND 4.0" in page.text
    assert "at the boundary of white matter 2.7 % at least 3.5 % probably failed" in page.text
    assert "at the boundary of white matter 0.62 below 0.8 fine" in page.text
    assert "with the template's (Dice) 0.981 at least 0.94 fine" in page.text
    assert "1.2.3" in page.text
    assert "Mind the gap." in page.text


def test_figures_are_referred_to_where_they_are(output: Path) -> None:
    page = _Page(build_report(output, "01", version="0"))
    assert len(page.figures()) == 4
    for src in page.figures():
        assert (output / src).is_file() and src.startswith("./sub-01/figures/")
    react = [a for tag, a in page.tags if tag == "div" and "data-interactive" in a]
    assert len(react) == 2, "both registrations fade when pointed at"


def test_the_page_repeats_byte_for_byte(output: Path) -> None:
    first = build_report(output, "01", version="0").read_bytes()
    assert build_report(output, "01", version="0").read_bytes() == first
    assert not list(output.glob(".*")), "a part file was left behind"


def test_only_the_own_script_may_run(output: Path) -> None:
    text = build_report(output, "01", version="1").read_text()
    (policy,) = re.findall(r'"Content-Security-Policy" content="(.*?)"', text)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy
    assert len(script.encode()) < 40_000, "one small script"


def test_names_from_the_data_do_not_run(output: Path) -> None:
    evil = "<img src=x onerror=alert(1)>\"'&"
    func, pictures = output / "sub-01" / "func", output / "sub-01" / "figures"
    name = f"sub-01_task-{evil}"
    _json(
        func / f"{name}_space-S_atlas-A424_desc-robust_timeseries.json",
        {"Warnings": ["<script>alert(2)</script>"], "FilledParcels": ["<script>alert(3)</script>"]},
    )
    _json(
        func / f"{name}_model-m_desc-windows_embeddings.json",
        {"Model": {"<script>": "<script>alert(4)"}},
    )
    (pictures / f"{name}_desc-motion_bold.svg").write_text("<svg/>")
    (output / "logs").mkdir()
    (output / "logs" / "crash.txt").write_text("</pre><script>alert(5)</script>")
    (output / "logs" / "1_status.tsv").write_text(
        STATUS
        + f"01\t\t{evil}\t\t<script>alert(6)</script>\tfailed\t<script>\t1\t1\tlogs/crash.txt\n"
    )
    page = _Page(build_report(output, "01", version="<script>alert(9)</script>"))
    assert [tag for tag, _ in page.tags if tag == "script"] == ["script"], "the page's own"
    assert not [a for _, a in page.tags if any(key.startswith("on") for key in a)]
    for number in (2, 3, 4, 5, 6, 9):
        assert f"alert({number})" in page.text, "escaped, not dropped"
    assert len(page.figures()) == 5
    assert all((output / src).is_file() for src in page.figures())


def test_a_warning_in_several_sidecars_is_shown_once_with_its_level(output: Path) -> None:
    func = output / "sub-01" / "func"
    grave = notice(Kind.APPROXIMATE_ATLAS, "The words do not matter.")
    for desc in ("denoised", "robust"):
        path = func / f"sub-01_task-b_space-S_atlas-A424approx_desc-{desc}_timeseries.json"
        _json(path, {"Warnings": to_json([grave])})
    run = next(r for r in contents.gather(output, "01").runs if r.name == "sub-01_task-b")
    assert run.warnings == [grave]


def test_sentences_of_earlier_versions_are_unclassified_warnings(output: Path) -> None:
    func = output / "sub-01" / "func"
    text = "All components of this untrained demo are approximate."
    _json(func / "sub-01_task-b_desc-denoised_timeseries.json", {"Warnings": [text]})
    run = next(r for r in contents.gather(output, "01").runs if r.name == "sub-01_task-b")
    assert [(w.kind, w.level, w.text) for w in run.warnings] == [("unclassified", "warning", text)]


def test_the_last_status_of_each_run_of_this_subject_counts(output: Path) -> None:
    logs = output / "logs"
    logs.mkdir()
    secret = output.parent / "secret.txt"
    secret.write_text("not for the report")
    rest, other = "01\t\trest\t\tsub-01/a", "sub-01\t\tb\t\tsub-01/b"
    older = STATUS.replace("session_id", "session")
    (logs / "20260101_status.tsv").write_text(older + f"{rest}\tfailed\tno TR\t1\t9\t\n")
    (logs / "20260102_status.tsv").write_text(
        STATUS
        + f"{rest}\tdone\t\t1\t9\t\n{other}\tskipped\t19 volumes\t1\t9\t../secret.txt\n"
        + "02\t\trest\t\tsub-02/a\tfailed\tother subject\t1\t9\t\n"
    )
    page = _Page(build_report(output, "01", version="0"))
    assert "no TR" not in page.text and "other subject" not in page.text
    assert "19 volumes" in page.text and "Errors (1)" in page.text
    assert "not for the report" not in page.text


def test_missing_and_broken_files_leave_their_line_out(tmp_path: Path) -> None:
    page = _Page(build_report(tmp_path, "07", version="0"))
    assert "no run of this subject" in page.text
    func = tmp_path / "sub-07" / "ses-1" / "func"
    func.mkdir(parents=True)
    (func / "sub-07_ses-1_task-a_desc-denoised_timeseries.json").write_text("{broken")
    (func / "sub-07_ses-1_task-a_desc-aroma_metrics.tsv").write_text("")
    (func / "sub-07_ses-1_task-a_desc-coverage_metrics.tsv").write_bytes(b"\xff\xfe\x00")
    (func / "sub-07_ses-1_task-a_desc-x_metrics.tsv").write_text("mask_ratio\npredictor\t\tz\n")
    page = _Page(build_report(tmp_path, "07", version="0"))
    assert "Session 1 · task a" in page.text


def test_a_model_has_a_part_for_each_scaling_of_the_series(output: Path) -> None:
    func, model = output / "sub-01" / "func", f"{SPACED}_model-brainlm13M_scaling-cohort"
    _tsv(func / f"{model}_desc-windows_embeddings.tsv", [{"onset": 0, "cls_0000": 1.0}] * 2)
    _tsv(func / f"{model}_desc-recording_embeddings.tsv", [{"onset": 0, "cls_0000": 1.0}])
    # as older versions called it
    _tsv(func / f"{SPACED}_desc-randomtiny_embeddings.tsv", [{"onset": 0, "cls_0000": 1.0}])
    run = contents.gather(output, "01").runs[0]
    assert [model.label for model in run.models] == [
        "brainlm13M",
        "brainlm13M, series scaled with the cohort",
        "randomtiny",
    ]


def test_sentences_about_the_baselines_are_true() -> None:
    scores = {"model": 0.3, "parcel_mean": 0.0, "ridge": 0.3}
    assert model_facts.verdict(scores).endswith(
        "the parcel mean, but not better than ridge regression on the other parcels"
    )
    assert model_facts.verdict({"model": -1.0, "ridge": 0.0}).startswith("predicts no better")
    assert model_facts.verdict({"model": 1.0, "ridge": 0.0}).endswith(
        "than ridge regression on the other parcels"
    )
    rows = [
        {"mask_ratio": ratio, "predictor": predictor, "r2": r2}
        for ratio in ("0.75", "0.2")
        for predictor, r2 in (("model", "0.1"), ("ridge", "0.2"))
    ]
    table, sentences = model_facts.metrics(rows)
    ratios, verdict = sentences[0].split(" of the values masked, the model ")
    assert len(sentences) == 1 and ratios == "With 0.2 and 0.75"
    assert verdict == "predicts no better than ridge regression on the other parcels."
    assert [(row.mask_ratio, row.predictor) for row in table if row.best] == [
        ("0.2", "ridge"),
        ("0.75", "ridge"),
    ]


# --- references -----------------------------------------------------------------------------------


def test_references_are_written_from_their_entries() -> None:
    table = references.references()
    assert references.bibtex(list(table)).count("\n@") + 1 == len(table)
    for key, reference in table.items():
        year = reference.short[-4:]
        assert year.isdigit() and f", {year}." in reference.full, key
        assert f"year = {{{year}}}" in reference.bibtex
        assert not set("{}\\") & set(reference.full + reference.short), key
    # as PubMed prints them
    assert table["fastica"].full.startswith("Hyvärinen A. Fast and robust")
    assert table["brainlm"].full.startswith("Ortega Caro J, Fonseca AHdO, Rizvi SA, et al. ")
    assert table["power"].short == "Power et al., 2012"
    assert table["bbr"].short == "Greve & Fischl, 2009"
    assert "NeuroImage 48(1), 63–72, 2009. https://doi.org/10.1016/" in table["bbr"].full


def test_the_columns_of_the_status_table_are_those_that_are_written() -> None:
    from dataclasses import fields

    from brainlm_bids.app.status import Row

    assert tuple(field.name for field in fields(Row)) == status.COLUMNS


# --- folders of older versions -----------------------------------------------------------------

# The name of a file before version 0.1, by its present one.
FORMER = {
    f"{SPACED}_model-m_desc-windows_embeddings": f"{SPACED}_desc-m_embeddings",
    f"{SPACED}_model-m_scaling-cohort_desc-windows_embeddings": f"{SPACED}_desc-mcohort_embeddings",
    f"{SPACED}_model-m_desc-reconstruction_metrics": f"{SPACED}_desc-m_metrics",
    f"{RUN}_model-m_desc-reconstruction_bold": f"{RUN}_desc-mreconstruction_bold",
    f"{RUN}_model-m_desc-networks_bold": f"{RUN}_desc-mnetworks_bold",
    f"{RUN}_model-m_scaling-cohort_desc-embeddings_bold": f"{RUN}_desc-mcohortembeddings_bold",
    **{
        f"group_task-rest_{present}": f"group_task-rest_{former}"
        for present, former in {
            "atlas-A424_model-m_scaling-cohort_desc-recording_embeddings": (
                "atlas-A424_desc-mcohort_embeddings"
            ),
            "atlas-A424_model-m_scaling-cohort_desc-reconstruction_metrics": (
                "atlas-A424_desc-mcohort_metrics"
            ),
            "atlas-A424_model-m_scaling-cohort_networks": "atlas-A424_desc-mcohort_networks",
            "atlas-A424_model-m_scaling-cohort_decoding": "atlas-A424_desc-mcohort_decoding",
            "model-m_scaling-cohort_desc-map00_embeddings": "desc-mcohortmap00_embeddings",
            "model-m_scaling-cohort_desc-consensus_networks": "desc-mcohortconsensus_networks",
            "model-m_scaling-cohort_desc-probability_networks": "desc-mcohortprobability_networks",
            "model-m_scaling-cohort_desc-scores_decoding": "desc-mcohortscores_decoding",
        }.items()
    },
}


def _folder(root: Path) -> Path:
    """One run and the cohort with the results of a model, under their present names."""
    run, cohort = Naming(str(root), RUN, SPACE, "A424"), Naming(str(root), GROUP, SPACE, "A424")
    cohort = replace(cohort, scaling="cohort")
    about = {"Model": {"label": "m", "licence": "MIT"}}
    sidecar = {"RepetitionTime": TR, "NumberOfVolumes": T, "MotionOutliers": 3}
    _json(run.path("denoised", extension=".json"), sidecar)
    columns = {"csf": 1.0, "motion_outlier00": 0, "motion_outlier01": 1, "motion_outlier02": 0}
    _tsv(run.path("confounds"), [columns] * 2)
    scores = {"mask_ratio": 0.2, "predictor": "model", "mse": 0.1234, "r2": 0.5, "n_windows": 3}
    drawn = [run.figure(key) for key in ("motion", "carpet")]
    for naming in (run, replace(run, scaling="cohort")):
        _tsv(naming.path("embeddings", model="m"), [{"onset": 0, "cls_0000": 1.0}])
        _json(naming.path("embeddings", model="m", extension=".json"), about)
    _tsv(run.path("metrics", model="m"), [scores])
    drawn += [run.figure(key, model="m") for key in ("reconstruction", "networks")]
    drawn.append(replace(run, scaling="cohort").figure("embeddings", model="m"))
    keys = ("embedding_map", "consensus", "network_probability", "decoding")
    drawn += [cohort.figure(key, model="m") for key in keys]
    _tsv(cohort.path("group_recordings"), [{"recording": RUN, "status": "included"}])
    _tsv(cohort.path("group_embeddings", model="m"), [{"recording": RUN, "cls_0000": 1.0}])
    maps = {"age": cohort.figure("embedding_map", model="m").relative_to(root).as_posix()}
    sidecar = {**about, "Maps": maps}
    _json(cohort.path("group_embeddings", model="m", extension=".json"), sidecar)
    _tsv(cohort.path("group_metrics", model="m"), [scores])
    _tsv(
        cohort.path("group_networks", model="m"),
        [{"participant_id": "consensus", "features": "model"}],
    )
    decoded = {"target": "age", "type": "regression", "n_recordings": 9, "n_subjects": 9}
    decoded |= {"n_repeats": 1, "features": "embedding", "readout": "cls", "scaling": "cohort"}
    decoded |= {"value": 0.6, "permutation_p": 0.01}
    measures = ("r2", "pearson_r")
    _tsv(cohort.path("decoding", model="m"), [{**decoded, "metric": name} for name in measures])
    for path in drawn:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("<svg/>")
    return root


def _renamed(folder: Path, renames: dict[str, str]) -> None:
    done = set()
    for path in sorted(folder.glob("**/*.*")):
        stem = path.name.partition(".")[0]
        if stem in renames:
            path.rename(path.with_name(path.name.replace(stem, renames[stem])))
            done.add(stem)
    assert done == set(renames)
    for path in folder.glob("*.json"):
        text = path.read_text()
        for present, former in renames.items():
            text = text.replace(present, former)
        path.write_text(text)


def _pages(folder: Path) -> list[str]:
    subject = build_report(folder, "01", version="0")
    group = build_group_report(folder, GROUP, SPACE, "A424", version="0")
    return [subject.read_text(), group.read_text()]


def test_reports_of_a_folder_with_names_of_older_versions_lose_nothing(tmp_path: Path) -> None:
    """They are those of the same folder under the present names, but for the figures' paths."""
    present = _pages(_folder(tmp_path / "present"))
    former_folder = _folder(tmp_path / "former")
    _renamed(former_folder, FORMER)
    former = _pages(former_folder)
    for page, other in zip(present, former, strict=True):
        for name, older in FORMER.items():
            page = page.replace(name, older)
        assert page == other
    # the test's folder has what it is about
    assert len(_Page(former_folder / "sub-01.html").figures()) == 5
    assert len(_Page(former_folder / "group.html").figures()) == 4
    assert "0.1234" in former[0]
    assert ">0.123</td>" in former[1]


def test_motion_outliers_of_older_folders_are_counted(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    before = _cards(build_report(folder, "01", version="0"))
    sidecar = next(folder.glob("**/*desc-denoised_timeseries.json"))
    _json(sidecar, {"RepetitionTime": TR, "NumberOfVolumes": T})
    assert _cards(build_report(folder, "01", version="0")) == before
    assert before["Motion outliers"] == "3 | 5 % of the volumes"
    next(folder.glob("**/*desc-confounds_timeseries.tsv")).unlink()
    assert "Motion outliers" not in _cards(build_report(folder, "01", version="0"))


# --- order and licence ---------------------------------------------------------------------------


def test_the_order_of_sections_is_that_of_the_table_of_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _folder(tmp_path)

    def headings() -> list[str]:
        text = build_group_report(folder, GROUP, SPACE, "A424", version="0").read_text()
        entries = re.findall(r'<a href="#([\w-]+)">(.*?)</a>', text)
        sections = re.findall(r'id="([\w-]+)">\n?<h[123]>(.*?)</h', text)
        sections += re.findall(r'<h3 id="([\w-]+)">(.*?)</h3>', text)
        assert {anchor for anchor, _ in entries} == {anchor for anchor, _ in sections}
        return [name for _, name in entries]

    last = ["States", "What else is in the embedding"]
    of_models = ["m", "Reconstruction", "Embedding map", "Networks", "Decoding", *last]
    assert headings()[:10] == ["Summary", "Cohort", "Scaling", *of_models]
    table = dict(reversed(figure_table().items()))
    monkeypatch.setattr(figure_files, "figure_table", lambda: table)
    of_models = ["m", "Reconstruction", *reversed(last), "Decoding", "Networks", "Embedding map"]
    assert headings()[:10] == ["Summary", "Scaling", "Cohort", *of_models]


def test_no_licence_is_assumed(output: Path) -> None:
    """The sidecar of the model records none; the page's last section is on BrainLM's weights."""
    text = _Page(build_report(output, "01", version="0")).text
    assert "Licence of the weights: none is recorded" in text
    sidecar = next(output.glob("**/*_embeddings.json"))
    for model, expected in (
        ({"label": "m", "licence": "MIT"}, "MIT"),
        ({"label": "m", "untrained": True}, "none (random weights)"),
        ({"label": "m", "licence": WEIGHTS_LICENCE}, WEIGHTS_LICENCE),
    ):
        _json(sidecar, {"Model": model})
        text = _Page(build_report(output, "01", version="0")).text
        assert f"Licence of the weights: {expected}" in text
