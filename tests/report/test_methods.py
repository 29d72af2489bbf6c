"""The methods text against the sidecars of what was done, and its four forms."""

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from methods_claims import check

from brainlm_bids import files, resources
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.report import references
from brainlm_bids.report.clauses import said
from brainlm_bids.report.manuscript import Bullets, Heading, Manuscript, Paragraph
from brainlm_bids.report.methods import methods
from brainlm_bids.report.run_facts import acquisition
from brainlm_bids.report.run_records import RunRecord, gather_runs

SUSPECT = {"Kind": "suspect_registration", "Level": "danger", "Text": "It has failed."}
PARCELS = resources.parcels().names


def _series(path: Path, volumes: int, tr: float) -> Path:
    rng = np.random.default_rng(volumes)
    values = 100 + rng.normal(size=(volumes, 5)) @ rng.normal(size=(5, 424))
    values += rng.normal(size=values.shape)
    files.write_tsv(path, list(PARCELS), values.T.tolist())
    path.with_suffix(".json").write_text(json.dumps({"RepetitionTime": tr}))
    return path


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Series of two repetition times, one too short for a window, embedded in an unusual way."""
    folder = tmp_path_factory.mktemp("given")
    series = [
        _series(folder / "sub-01_task-rest_timeseries.tsv", 100, 2.0),
        _series(folder / "sub-02_task-rest_timeseries.tsv", 60, 0.735),
    ]
    raw = folder / "raw"
    files.write_json(raw / "dataset_description.json", {"Name": "r", "BIDSVersion": "1.8.0"})
    command = [sys.executable, "-m", "brainlm_bids", str(raw), str(folder / "out"), "participant"]
    command += ["-w", str(folder / "work"), "--offline", "--nprocs", "1", "--atlas", "A424approx"]
    command += ["--timeseries", *map(str, series), "--model", "random:tiny"]
    command += ["--pooling", "mean", "--window-stride", "50", "--mask-ratio", "0.5"]
    environment = {k: v for k, v in os.environ.items() if k != "TEMPLATEFLOW_HOME"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "out"


def test_a_given_series_was_not_preprocessed(given: Path) -> None:
    text = check(given)
    for word in ("CLS", "volume was", "deepbet", "FSL", "ICA", "motion", "registered", "T1w"):
        assert word not in text.partition("## Software")[0], word
    assert "starting every 50 volumes" in text and "50 % of the tokens" in text
    assert "In 1 of 2 runs, the series were resampled, before they were scaled, from a" in text
    assert "repetition time of 2 s to 0.735 s" in text and "median" in text
    assert "CC0" in text


def test_every_form_has_the_same_words_and_references(given: Path) -> None:
    logs = given / "logs"
    forms = {kind: (logs / f"CITATION.{kind}").read_text() for kind in ("md", "tex", "html", "bib")}
    keys = re.findall(r"^@\w+\{(\w+),", forms["bib"], re.M)
    assert len(keys) == len(set(keys)) and {"brainlm", "nemati", "akiki"} <= set(keys)
    cited = re.findall(r"\\citep\{([^}]*)\}", forms["tex"])
    assert {key for group in cited for key in group.split(",")} == set(keys)
    assert len(re.findall(r"^\d+\. ", forms["md"], re.M)) == len(keys)
    assert forms["html"].count("<li>") == forms["md"].count("\n- ") + len(keys)
    plain = html.unescape(re.sub(r"<[^>]+>", "", forms["html"]))
    for line in forms["md"].splitlines():
        assert re.sub(r"^(#+|-|\d+\.) ", "", line) in plain, line
    tex = forms["tex"]
    assert tex.count("{") == tex.count("}") and tex.count(r"\begin") == tex.count(r"\end")
    assert not re.search(r"(?<!\\)[%&#_]", tex.partition(r"\begin{document}")[2])
    page = (given / "sub-01.html").read_text()
    assert "starting every 50 volumes" in page and "Results of 1 run of 1 participant" in page


def test_the_text_again_and_no_text_about_nothing(given: Path, tmp_path: Path) -> None:
    path = given / "logs" / "CITATION.md"
    before = path.read_text()
    path.unlink()
    raw = given.parent / "raw"
    series = sorted(map(str, given.parent.glob("*.tsv")))

    def again(out: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "brainlm_bids", str(raw), str(out), "participant"]
        command += ["--boilerplate-only", "--timeseries", *series, "-w", str(tmp_path / "work")]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert again(given).returncode == 0
    assert path.read_text() == before
    nothing = again(tmp_path / "empty")
    assert nothing.returncode == 2 and "--boilerplate-only" in nothing.stderr
    assert "Traceback" not in nothing.stderr


# --- sentences from records ------------------------------------------------------------------


def _run(label: str = "01", **changed: Any) -> RunRecord:
    series = {
        "GeneratedBy": {"Name": "brainlm-bids", "Version": "1.2.3"},
        "InputData": {"Kind": "raw"},
        "Sources": [f"bids:raw:sub-{label}/func/x_bold.nii.gz", f"bids:raw:sub-{label}_T1w.nii.gz"],
        "Template": {"Name": "MNI152NLin6Asym"},
        "Atlas": {"Name": "A424"},
        "Coregistration": "boundary",
        "DummyVolumes": 2,
        "DummyVolumesDetected": True,
        "FramewiseDisplacementThreshold": 0.5,
        "StandardisedDVARSThreshold": 1.5,
        "GrandMean": 10000.0,
        "Denoising": "nonaggr",
        "HighPassCutoff": 100.0,
    } | changed.pop("series", {})
    components = {
        "NumberOfComponents": 30,
        "NumberOfNoiseComponents": 12,
        "SmoothingFWHM": 6.0,
        "RandomSeed": 42,
    }
    given: dict[str, Any] = {
        "components": components,
        "t1w": f"sub-{label}",
        "anatomy": {"BrainExtraction": "deepbet"},
    } | changed
    return RunRecord(
        Naming("/o", f"sub-{label}_task-a", "MNI152NLin6Asym", "A424"), series, **given
    )


def _text(*runs: RunRecord) -> str:
    return methods(runs).markdown()


def test_the_order_of_steps_is_that_of_the_program() -> None:
    """ICA on unfiltered volumes, removal, filter; resampling, scaling, model."""
    scaled = {
        "Resampling": "sinc",
        "SourceRepetitionTime": 2.0,
        "RepetitionTime": 0.735,
        "ScalingStatistics": "this recording",
    }
    model = {"Pooling": "CLS token", "WindowVolumes": 200, "WindowStride": 200, "Device": "cuda"}
    text = _text(_run(scaled=scaled, models={"m": model}))
    steps = [
        "N4",
        "neural network deepbet",
        "greedy diffeomorphism",
        "boundary of the white matter",
        "realignment",
        "averaged within the 424 parcels",
        "unfiltered volumes were smoothed",
        "removed from the unfiltered, unsmoothed parcel series",
        "high-pass filter",
        "resampled, before",
        "its median was subtracted",
        "embedded by BrainLM",
        "ran on a GPU",
    ]
    places = [text.index(step) for step in steps]
    assert places == sorted(places)


def test_runs_that_differ_are_counted() -> None:
    bare = _run("02", t1w="", anatomy={}, series={"Denoising": "none", "DummyVolumes": 4})
    text = _text(_run("01"), bare, _run("03", anatomy={"BrainExtraction": "skull-stripped"}))
    assert "Results of 3 runs of 3 participants" in text
    assert "2 T1w images were corrected" in text
    assert "In 1 of 2 T1w images, the brain was extracted with the neural network deepbet" in text
    assert "In 1 of 2 T1w images, the image had no skull" in text
    assert "In 1 of 3 runs, there was no T1w image" in text
    assert "In 2 of 3 runs, the components classified as noise were removed" in text
    assert "In 1 of 3 runs, none of the components was removed" in text
    assert "This excluded 2–4 volumes per run" in text


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"anatomy": {"BrainExtraction": "threshold"}}, "found by a threshold"),
        ({"anatomy": {"BrainExtraction": "a new way"}}, "extracted by a new way"),
        ({"anatomy": {"BrainExtraction": "deepbet", "Normalization": "syn"}}, "(SyN)"),
        (
            {"anatomy": {"BrainExtraction": "deepbet", "LesionVolume": 31.26}},
            "(31.3 ml) was left out of the bias field, of the cost of the registration",
        ),
        ({"series": {"DummyVolumesDetected": False}}, "first 2 volumes of the run were excluded"),
        ({"series": {"Denoising": "aggr"}}, "series aggressively"),
        ({"series": {"LowPassCutoff": 10.0}}, "low-pass filter with a cut-off period of 10 s"),
        ({"series": {"BadVolumes": [3, 4]}}, "1 run of 1 had 2 of them"),
        ({"series": {"BadVolumes": []}}, "there were none"),
        ({"series": {"RegistrationContrast": 9.0}}, "brain masks, which were within limits"),
        (
            {"series": {"RegistrationContrast": 1.0, "Warnings": [SUSPECT]}},
            "beyond their limits, so that it has probably failed",
        ),
        ({"series": {"Coregistration": "mutual information"}}, "alone, because the boundary"),
        (
            {"series": {"DistortionCorrection": {"Method": "pair of opposite polarity"}}},
            "of opposite phase-encoding polarity",
        ),
        (
            {"series": {"DistortionCorrection": {"Method": "estimated from the T1w image"}}},
            "distortion was estimated from the T1w image",
        ),
        ({"series": {"DistortionCorrection": {"Method": "none"}}}, "distortion was not corrected"),
        ({"series": {"InputData": {}}}, "do not record the kind of input data"),
        ({"series": {"Atlas": {"Name": "[@evil]"}}}, "[ @evil] atlas"),
    ],
)
def test_each_record_has_its_words(changed: dict[str, Any], words: str) -> None:
    assert words in _text(_run(**changed))
    assert words not in _text(_run())


def test_a_registration_is_judged_by_what_was_computed() -> None:
    whole = {"RegistrationContrast": 9.0, "BrainOverlap": 0.95, "BrainAtImageEdge": 0.0}
    text = _text(_run(series=whole))
    for words in ("contrast and cost", "overlap of brain masks", "edges of the T1w image"):
        assert words in text
    fmriprep = {"TemplateDice": 0.7, "InputData": {"Kind": "fMRIPrep"}, "Warnings": [SUSPECT]}
    text = _text(_run(series=fmriprep))
    assert "fMRIPrep’s registration was judged by the overlap of brain masks, which was " in text
    assert "beyond its limit, so" in text and "contrast" not in text


def test_no_licence_is_assumed() -> None:
    model = {"Model": {"label": "m", "sha256": "ff00"}, "WindowVolumes": 200, "WindowStride": 200}
    text = _text(_run(models={"m": model}))
    assert "weights with SHA-256 ff00, licence: none is recorded." in text and "CC BY" not in text
    model["Model"] = {"label": "m", "sha256": "ff00", "licence": "MIT"}
    assert "licence: MIT." in _text(_run(models={"m": model}))


def test_only_what_is_cited_is_listed() -> None:
    manuscript = methods([_run()])
    body, listed = manuscript.markdown().split("## References")
    entries = re.findall(r"^@\w+\{(\w+),", manuscript.forms()[".bib"], re.M)
    assert entries == manuscript.keys and len(entries) == len(re.findall(r"^\d+\. ", listed, re.M))
    for key in entries:
        assert references.references()[key].short in body
    assert "brainlm" not in entries and "deepbet" in entries


def test_every_reference_is_cited_by_a_text() -> None:
    package = Path(references.__file__).parent
    source = "\n".join(path.read_text() for path in package.glob("*.py"))
    assert set(references.references()) <= set(references.cited_keys(source))


def test_forms_escape_what_they_contain() -> None:
    text = Manuscript(
        (Heading("A & B", 1), Paragraph("50 % <b> x_y [@bids;@power] $5"), Bullets(("{i}",))), "T"
    )
    tex, page = text.latex(), text.html()
    assert r"\section*{A \& B}" in tex and r"50 \% <b> x\_y \citep{bids,power} \$5" in tex
    assert r"\item \{i\}" in tex and r"\bibliography{T}" in tex
    assert "<h1>A &amp; B</h1>" in page and "&lt;b&gt;" in page and "<b>" not in page
    assert "(Gorgolewski et al., 2016; Power et al., 2012)" in text.markdown()
    evil = Manuscript((Paragraph('<script> https://x.org/" onload="alert(1)'),)).section()
    assert "<script>" not in evil and 'onload="' not in evil
    assert 'href="https://x.org/"' in evil


def test_agreement_and_difference_in_words() -> None:
    assert said(["a", "a"]) == "A."
    assert said(["a", "b", "a"]) == "In 2 of 3 runs, a. In 1 of 3 runs, b."
    assert said([None, "a"]) == "In 1 of 2 runs, a."
    assert said([None, None]) == "" and said([]) == ""


def test_unfinished_runs_are_not_described(given: Path) -> None:
    record = next((given / "logs" / "records").glob("sub-02_*_series.json"))
    content = record.read_text()
    record.unlink()
    try:
        assert [run.participant for run in gather_runs(given)] == ["sub-01"]
    finally:
        record.write_text(content)


ECHOES = {"EchoTimes": [0.014, 0.03, 0.046], "EchoCombination": "optimal", "MedianT2star": 0.0443}


def test_echoes_and_what_tedana_did() -> None:
    alone = _text(_run("01", series=dict(ECHOES)), _run("02"))
    assert "In 1 of 2 runs, the 3 echoes (14, 30 and 46 ms) were resampled by" in alone
    assert "Enhancement of BOLD-contrast sensitivity" in alone and "with tedana" in alone
    assert "Differentiating" not in alone
    tedana = ECHOES | {
        "EchoDenoising": "tedana 26.0.3",
        "TedanaComponents": 40,
        "TedanaRejectedComponents": 13,
    }
    text = _text(_run("01", series=dict(tedana)))
    assert "as BOLD does (13 of 40) were found by tedana 26.0.3" in text
    assert "Differentiating" in text
    rejected = {"Kind": "tedana_rejected_all", "Level": "danger", "Text": "None."}
    text = _text(_run("01", series=tedana | {"Warnings": [rejected]}))
    assert "accepted no component, and none was removed" in text


def test_echoes_in_the_report() -> None:
    (fact,) = [one for one in acquisition(ECHOES) if one.label == "Echoes combined"]
    assert (fact.value, fact.note) == ("3, at 14, 30, 46 ms", "T2* of the brain: 44.3 ms (median)")
    suspect = {"Kind": "echo_times_suspect", "Level": "danger", "Text": "Wrong."}
    (fact,) = [one for one in acquisition(ECHOES | {"Warnings": [suspect]}) if one.label[0] == "E"]
    assert fact.odd
