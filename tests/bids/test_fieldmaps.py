"""Which field map a run has, or why none: every way in which data sets declare it, and mistakes."""

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pytest

from brainlm_bids.bids import inputs
from brainlm_bids.bids.acquisition import Acquired, Acquisition
from brainlm_bids.bids.context import to_plain
from brainlm_bids.bids.fieldmaps import FIELD, PAIR, PHASEDIFF, PHASES
from brainlm_bids.bids.intended import intended_path
from brainlm_bids.bids.layout import find_files
from brainlm_bids.bids.runs import Run
from brainlm_bids.bids.sidecars import read_metadata
from brainlm_bids.settings import Settings

HEAD = (10, 11, 12)
RUN = "sub-01_ses-01_task-rest"
TARGET = f"ses-01/func/{RUN}_bold.nii.gz"
TIMES = {"EchoTime1": 0.00492, "EchoTime2": 0.00738}
ENCODED = {"PhaseEncodingDirection": "j-", "TotalReadoutTime": 0.05}
OPPOSITE = {"PhaseEncodingDirection": "j", "TotalReadoutTime": 0.06}


class DataSet:
    """A data set that grows file by file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        (root / "dataset_description.json").write_text('{"Name": "a", "BIDSVersion": "1.10.0"}')

    def write(
        self, name: str, sidecar: Any = None, *, shape: tuple[int, ...] = HEAD, voxel: float = 9.0
    ) -> Path:
        """An empty image in the folder that its name says, and its sidecar."""
        parts = [part for part in name.split("_") if part.startswith(("sub-", "ses-"))]
        is_func = name.endswith(("bold", "sbref"))
        path = self.root.joinpath(*parts, "func" if is_func else "fmap", f"{name}.nii.gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        image = nb.Nifti1Image(np.zeros(shape, np.uint8), np.diag([voxel] * 3 + [1.0]))
        image.header.set_xyzt_units("mm", "sec")
        if len(shape) == 4:
            image.header.set_zooms((voxel, voxel, voxel, 2.0))
        image.to_filename(path)
        if sidecar is not None:
            path.with_name(f"{name}.json").write_text(json.dumps(sidecar))
        return path

    def bold(self, name: str = RUN, **sidecar: Any) -> Path:
        """A run along j-; fields that are None are left out."""
        values = {"RepetitionTime": 2.0, "TaskName": "rest", **ENCODED, **sidecar}
        values = {key: value for key, value in values.items() if value is not None}
        return self.write(f"{name}_bold", values, shape=(*HEAD, 30))

    def phasediff(self, stem: str = "sub-01_ses-01", **sidecar: Any) -> tuple[Path, Path]:
        """A phase difference and its first magnitude image."""
        values = TIMES | {"IntendedFor": TARGET} | sidecar
        values = {key: value for key, value in values.items() if value is not None}
        magnitude = self.write(f"{stem}_magnitude1")
        return self.write(f"{stem}_phasediff", values), magnitude

    def epi(self, stem: str, encoded: dict[str, Any], **sidecar: Any) -> Path:
        """An image of a pair."""
        values = encoded | {"IntendedFor": [TARGET]} | sidecar
        values = {key: value for key, value in values.items() if value is not None}
        return self.write(f"sub-01_ses-01_{stem}_epi", values)

    def runs(self, **settings: Any) -> dict[str, Run]:
        """Every run of the data set, by its stem."""
        out = self.root.parent
        found = inputs.find_runs(Settings(self.root, out / "out", out / "work", **settings))
        return {run.stem: run for run in found}

    def acquired(self, path: Path) -> Acquired:
        """What an image has, whether it is processed as a run of its own or not."""
        out = self.root.parent
        settings = Settings(self.root, out / "out", out / "work")
        metadata = read_metadata(path, self.root)
        return Acquisition(find_files(settings), settings).of(path, metadata)

    def run(self, **settings: Any) -> Run:
        """The run, which nothing about field maps may stop."""
        run = self.runs(**settings)[RUN]
        assert run.problem is None and run.skip is None
        assert (run.fieldmap is None) == bool(run.no_fieldmap)
        assert "\n" not in run.no_fieldmap
        return run

    def reason(self, **settings: Any) -> str:
        """Why the run has no field map; a warning wherever that may be a mistake."""
        run = self.run(**settings)
        assert run.fieldmap is None
        return run.no_fieldmap


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return DataSet(tmp_path / "bids")


def _warned(run: Run) -> list[str]:
    return [one.text for one in run.warnings if one.kind == "fieldmap_not_used"]


# --- how runs and field maps name each other -------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        f"ses-01/func/{RUN}_bold.nii.gz",
        f"./ses-01/func/{RUN}_bold.nii.gz",
        f"/ses-01/func/{RUN}_bold.nii.gz",
        f"sub-01/ses-01/func/{RUN}_bold.nii.gz",
        f"/sub-01/ses-01/func/{RUN}_bold.nii.gz",
        f"bids::sub-01/ses-01/func/{RUN}_bold.nii.gz",
        f"bids:raw:sub-01/ses-01/func/{RUN}_bold.nii.gz",
        f"/data/study/sub-01/ses-01/func/{RUN}_bold.nii.gz",
        f"ses-01\\func\\{RUN}_bold.nii.gz",
        f"ses-01/func/{RUN}_bold.nii",
        [f"ses-01/func/{RUN}_bold.nii.gz"],
        [f"ses-01/func/{RUN}_sbref.nii.gz", 7, None, f"ses-01/func/{RUN}_bold.nii.gz"],
        [f"bids::sub-01/ses-01/func/{RUN}_echo-1_bold.nii.gz"],
    ],
)
def test_every_spelling_of_intended_for(data: DataSet, target: Any) -> None:
    data.bold()
    phasediff, magnitude = data.phasediff(IntendedFor=target)
    found = data.run().fieldmap
    assert found is not None and found.kind == PHASEDIFF
    assert (found.images, found.magnitude) == ((phasediff,), magnitude)
    assert found.echo_times == (0.00492, 0.00738)
    assert found.uris == (
        "bids:raw:sub-01/ses-01/fmap/sub-01_ses-01_phasediff.nii.gz",
        "bids:raw:sub-01/ses-01/fmap/sub-01_ses-01_magnitude1.nii.gz",
    )


@pytest.mark.parametrize("text", ["", "/", "bids::", "bids:", "sub-01", "../..", "a/b"])
def test_odd_paths_are_only_paths(text: str) -> None:
    assert intended_path(text, "sub-01").startswith("sub-01")


@pytest.mark.parametrize(
    "target",
    [
        f"ses-01/func/{RUN}_run-2_bold.nii.gz",
        f"ses-02/func/{RUN}_bold.nii.gz",
        f"func/{RUN}_bold.nii.gz",
        f"bids::sub-02/ses-01/func/{RUN}_bold.nii.gz",
        f"ses-01/func/{RUN}_sbref.nii.gz",
    ],
)
def test_what_intended_for_does_not_name_has_no_field_map(data: DataSet, target: str) -> None:
    data.bold()
    data.phasediff(IntendedFor=target)
    run = data.run()
    assert "IntendedFor names sub-0" in run.no_fieldmap
    assert "which does not exist" in run.no_fieldmap
    assert _warned(run)


def test_a_run_of_another_task_that_was_removed_is_no_reason(data: DataSet) -> None:
    data.bold()
    data.phasediff(IntendedFor="ses-01/func/sub-01_ses-01_task-nback_bold.nii.gz")
    assert "no field map of its session is declared for it" in data.reason()


def test_a_field_map_of_other_runs_only(data: DataSet) -> None:
    data.bold()
    data.bold("sub-01_ses-01_task-nback")
    data.phasediff(IntendedFor="ses-01/func/sub-01_ses-01_task-nback_bold.nii.gz")
    runs = data.runs()
    assert runs["sub-01_ses-01_task-nback"].fieldmap is not None
    assert "no field map of its session is declared for it" in runs[RUN].no_fieldmap
    assert not _warned(runs[RUN])  # a policy of whoever made the data set


@pytest.mark.parametrize("source", ["fmap0", ["fmap0"], ["none", "fmap0"]])
@pytest.mark.parametrize("identifier", ["fmap0", ["fmap0"], ["other", "fmap0"]])
def test_identifiers(data: DataSet, source: Any, identifier: Any) -> None:
    data.bold(B0FieldSource=source)
    phasediff, _ = data.phasediff(IntendedFor=None, B0FieldIdentifier=identifier)
    found = data.run().fieldmap
    assert found is not None
    assert (found.images, found.identifier) == ((phasediff,), "fmap0")


def test_identifiers_come_before_intended_for(data: DataSet) -> None:
    data.bold(B0FieldSource="chosen")
    data.phasediff("sub-01_ses-01_run-1")
    chosen, _ = data.phasediff("sub-01_ses-01_run-2", IntendedFor=None, B0FieldIdentifier="chosen")
    found = data.run().fieldmap
    assert found is not None and found.images == (chosen,)


def test_an_identifier_of_no_image_leaves_intended_for(data: DataSet) -> None:
    data.bold(B0FieldSource="missing")
    phasediff, _ = data.phasediff()
    found = data.run().fieldmap
    assert found is not None and found.images == (phasediff,)
    phasediff.unlink()
    run = data.run()
    assert run.no_fieldmap == "B0FieldSource 'missing' is the B0FieldIdentifier of no image"
    assert _warned(run)


def test_an_identifier_that_the_run_does_not_name(data: DataSet) -> None:
    data.bold()
    data.phasediff(IntendedFor=None, B0FieldIdentifier="fmap0")
    assert "'fmap0' is no B0FieldSource of the run" in data.reason()


def test_the_first_usable_source_of_a_list_is_taken(data: DataSet) -> None:
    data.bold(B0FieldSource=["second", "first"])
    data.phasediff("sub-01_ses-01_run-1", IntendedFor=None, B0FieldIdentifier="first")
    second, _ = data.phasediff("sub-01_ses-01_run-2", IntendedFor=None, B0FieldIdentifier="second")
    found = data.run().fieldmap
    assert found is not None and found.images == (second,)
    second.write_bytes(b"")
    run = data.run()
    assert run.fieldmap is not None and run.fieldmap.identifier == "first"
    assert "run-2_phasediff" in _warned(run)[0] and "was used" in _warned(run)[0]


# --- sessions --------------------------------------------------------------------------------


def test_identifiers_that_every_session_repeats_stay_in_their_session(data: DataSet) -> None:
    other = RUN.replace("ses-01", "ses-02")
    data.bold(B0FieldSource="fmap0")
    data.bold(other, B0FieldSource="fmap0")
    one, _ = data.phasediff(IntendedFor=None, B0FieldIdentifier="fmap0")
    two, _ = data.phasediff("sub-01_ses-02", IntendedFor=None, B0FieldIdentifier="fmap0")
    runs = data.runs()
    first, second = runs[RUN].fieldmap, runs[other].fieldmap
    assert first is not None and first.images == (one,)
    assert second is not None and second.images == (two,)


@pytest.mark.parametrize(
    ("source", "sidecar", "said"),
    [
        (None, {}, "only a field map of another session is intended for it (sub-01_ses-02_phase"),
        ("a", {"IntendedFor": None, "B0FieldIdentifier": "a"}, "B0FieldSource 'a' is of another"),
    ],
)
def test_a_field_map_of_another_session_is_not_used(
    data: DataSet, source: str | None, sidecar: dict[str, Any], said: str
) -> None:
    data.bold(B0FieldSource=source)
    data.phasediff("sub-01_ses-02", **sidecar)
    run = data.run()
    assert said in run.no_fieldmap and _warned(run)


def test_only_another_session_has_field_maps(data: DataSet) -> None:
    data.bold()
    data.phasediff("sub-01_ses-02", IntendedFor=None)
    assert data.reason() == (
        "only another session of the subject has field maps (sub-01_ses-02_magnitude1.nii.gz)"
    )
    data.bold("sub-02_task-rest")
    assert data.runs()["sub-02_task-rest"].no_fieldmap == (
        "the data set has no field map of the subject"
    )


# --- maps of the field -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("units", "known"),
    [("Hz", "Hz"), ("hz", "Hz"), ("rad/s", "rad/s"), ("T", "T"), ("tesla", "T")],
)
def test_a_map_of_the_field(data: DataSet, units: str, known: str) -> None:
    data.bold()
    magnitude = data.write("sub-01_ses-01_magnitude")
    image = data.write("sub-01_ses-01_fieldmap", {"Units": units, "IntendedFor": TARGET})
    found = data.run().fieldmap
    assert found is not None
    assert (found.kind, found.images, found.magnitude) == (FIELD, (image,), magnitude)
    assert (found.units, found.echo_times) == (known, ())


def test_two_phases_are_in_the_order_of_their_echoes(data: DataSet) -> None:
    data.bold()
    magnitude = data.write("sub-01_ses-01_magnitude1")
    later = data.write("sub-01_ses-01_phase1", {"EchoTime": 0.00738, "IntendedFor": TARGET})
    sooner = data.write("sub-01_ses-01_phase2", {"EchoTime": 0.00492, "IntendedFor": TARGET})
    found = data.run().fieldmap
    assert found is not None
    assert (found.kind, found.images, found.magnitude) == (PHASES, (sooner, later), magnitude)
    assert found.echo_times == (0.00492, 0.00738)
    later.with_name("sub-01_ses-01_phase2.nii.gz").unlink()
    assert data.reason() == "sub-01_ses-01_phase1.nii.gz: has no phase2 image beside it"


def test_echo_times_of_the_magnitudes_serve_a_phase_difference(data: DataSet) -> None:
    data.bold()
    data.phasediff(EchoTime1=None, EchoTime2=None, EchoTime=0.00738)
    assert (
        data.reason()
        == "sub-01_ses-01_phasediff.nii.gz: no EchoTime1 and EchoTime2 in its sidecars"
    )
    data.write("sub-01_ses-01_magnitude1", {"EchoTime": 0.00492})
    data.write("sub-01_ses-01_magnitude2", {"EchoTime": 0.00738})
    found = data.run().fieldmap
    assert found is not None and found.echo_times == (0.00492, 0.00738)


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ({"EchoTime1": None}, "no EchoTime1 and EchoTime2 in its sidecars"),
        ({"EchoTime1": 4.92, "EchoTime2": 7.38}, "4.92 and 7.38, are not times in seconds"),
        ({"EchoTime1": "0.00492"}, "not times in seconds"),
        ({"EchoTime1": 0}, "not times in seconds"),
        ({"EchoTime1": -0.00492}, "not times in seconds"),
        ({"EchoTime1": 0.00738}, "both of its echo times are 0.00738 s"),
    ],
)
def test_echo_times_that_cannot_be(data: DataSet, times: dict[str, Any], said: str) -> None:
    data.bold()
    data.phasediff(**times)
    run = data.run()
    assert said in run.no_fieldmap and _warned(run)


@pytest.mark.parametrize(
    ("sidecar", "said"),
    [({}, "no Units in its sidecars"), ({"Units": "ppm"}, "'ppm'; known are Hz, rad/s and T")],
)
def test_units_that_are_not_known(data: DataSet, sidecar: dict[str, str], said: str) -> None:
    data.bold()
    data.write("sub-01_ses-01_magnitude")
    data.write("sub-01_ses-01_fieldmap", {**sidecar, "IntendedFor": TARGET})
    assert said in data.reason()


def test_magnitude(data: DataSet) -> None:
    """The one of the same name; if it cannot be used the next; none: no correction."""
    data.bold()
    _, first = data.phasediff()
    second = data.write("sub-01_ses-01_magnitude2")
    data.write("sub-01_ses-01_acq-dwi_magnitude1")
    found = data.run().fieldmap
    assert found is not None and found.magnitude == first
    first.write_bytes(b"damaged")
    found = data.run().fieldmap
    assert found is not None and found.magnitude == second
    second.unlink()
    assert "sub-01_ses-01_magnitude1.nii.gz" in data.reason()
    first.unlink()
    assert data.reason() == "sub-01_ses-01_phasediff.nii.gz: has no magnitude image beside it"


def test_a_magnitude_of_another_grid(data: DataSet) -> None:
    data.bold()
    data.phasediff()
    data.write("sub-01_ses-01_magnitude1", shape=(10, 11, 13))
    assert "magnitude1.nii.gz: differs in grid from sub-01_ses-01_phasediff" in data.reason()
    data.write("sub-01_ses-01_magnitude1", voxel=9.3)
    assert "differs in grid" in data.reason()


def test_a_magnitude_alone(data: DataSet) -> None:
    data.bold()
    data.write("sub-01_ses-01_magnitude1", {"IntendedFor": TARGET})
    assert "sub-01_ses-01_magnitude1" in data.reason()


# --- pairs of opposite polarity --------------------------------------------------------------


def test_a_pair(data: DataSet) -> None:
    """The run's own polarity first, whatever the labels of dir say."""
    bold = data.bold()
    other = data.epi("dir-AP", OPPOSITE)
    same = data.epi("dir-PA", ENCODED)
    run = data.run()
    found = run.fieldmap
    assert found is not None
    assert (found.kind, found.images, found.magnitude) == (PAIR, (same, other), None)
    assert found.encodings == (("j-", 0.05), ("j", 0.06))
    assert run.reads == (bold, same, other)
    assert to_plain(found)["encodings"] == [["j-", 0.05], ["j", 0.06]]


def test_one_image_of_the_opposite_polarity_is_paired_with_the_run(data: DataSet) -> None:
    bold = data.bold()
    other = data.epi("dir-AP", OPPOSITE)
    found = data.run().fieldmap
    assert found is not None and found.images == (bold, other)
    sbref = data.write(f"{RUN}_sbref", ENCODED)
    found = data.run().fieldmap
    assert found is not None and found.images == (sbref, other)
    assert data.run().reads == (bold, sbref, other)
    found = data.run(ignore=("sbref",)).fieldmap
    assert found is not None and found.images == (bold, other)


def test_the_other_image_of_a_pair_need_not_be_declared(data: DataSet) -> None:
    data.bold()
    same = data.epi("acq-a_dir-PA", ENCODED)
    other = data.epi("acq-a_dir-AP", OPPOSITE, IntendedFor=None)
    data.epi("acq-b_dir-AP", OPPOSITE, IntendedFor=None)
    found = data.run().fieldmap
    assert found is not None and found.images == (same, other)
    other.unlink()
    assert "has the run's own PhaseEncodingDirection, j-" in data.reason()


@pytest.mark.parametrize("count", [1, 2])
def test_equal_polarity(data: DataSet, count: int) -> None:
    data.bold()
    for name in ("dir-AP", "dir-PA")[:count]:
        data.epi(name, ENCODED)
    reason = data.reason()
    assert "PhaseEncodingDirection, j-" in reason and "sub-01_ses-01_dir-AP_epi" in reason
    assert ("dir-PA_epi.nii.gz have the same" in reason) == (count == 2)


def test_a_pair_across_the_runs_axis_measures_the_same_field(data: DataSet) -> None:
    data.bold()
    right = data.epi("dir-LR", OPPOSITE | {"PhaseEncodingDirection": "i"})
    assert "i is not opposite" in data.reason()
    left = data.epi("dir-RL", OPPOSITE | {"PhaseEncodingDirection": "i-"})
    found = data.run().fieldmap
    assert found is not None and found.images == (right, left)
    assert [one[0] for one in found.encodings] == ["i", "i-"]


@pytest.mark.parametrize(
    ("sidecar", "said"),
    [
        ({"PhaseEncodingDirection": None}, "no PhaseEncodingDirection in its sidecars"),
        ({"PhaseEncodingDirection": "AP"}, "'AP' is none of"),
        ({"TotalReadoutTime": None}, "no TotalReadoutTime"),
        ({"TotalReadoutTime": 50}, "50 ms are 0.05 s"),
    ],
)
def test_what_an_image_of_a_pair_lacks(data: DataSet, sidecar: dict[str, Any], said: str) -> None:
    data.bold()
    data.epi("dir-AP", OPPOSITE, **sidecar)
    run = data.run()
    assert run.no_fieldmap.startswith("sub-01_ses-01_dir-AP_epi.nii.gz: ")
    assert said in run.no_fieldmap and _warned(run)
    if "TotalReadoutTime" in sidecar:
        found = data.run(fallback_total_readout_time=0.04).fieldmap
        assert found is not None and found.encodings[1] == ("j", 0.04)


def test_a_pair_of_two_grids(data: DataSet) -> None:
    data.bold()
    data.epi("dir-AP", OPPOSITE)
    data.write("sub-01_ses-01_dir-AP_epi", shape=(10, 11, 13))
    assert "has another grid than sub-01_ses-01_task-rest_bold" in data.reason()
    data.write("sub-01_ses-01_dir-AP_epi", voxel=8.0)
    assert "voxels of 8 × 8 × 8 mm" in data.reason()


def test_an_image_that_does_not_match_leaves_the_run_itself(data: DataSet) -> None:
    bold = data.bold()
    data.epi("dir-PA", ENCODED)
    data.write("sub-01_ses-01_dir-PA_epi", shape=(10, 11, 13))
    other = data.epi("dir-AP", OPPOSITE)
    found = data.run().fieldmap
    assert found is not None and found.images == (bold, other)


def test_runs_and_references_with_another_dir(data: DataSet) -> None:
    """By identifiers, or undeclared if nothing but dir differs in their names."""
    stem = "sub-01_ses-01_task-rest_dir-{}_run-1"
    one, other = stem.format("PA"), stem.format("AP")
    bold = data.bold(one)
    opposite = data.bold(other, **OPPOSITE)
    data.bold(stem.format("AP").replace("run-1", "run-2"), **OPPOSITE)
    found = data.runs()[one].fieldmap
    assert found is not None and (found.kind, found.images) == (PAIR, (bold, opposite))
    found = data.runs()[other].fieldmap
    assert found is not None and found.images == (opposite, bold)
    # single-band references come first, and need one of the run's own
    reference = data.write(f"{other}_sbref", OPPOSITE)
    own = data.write(f"{one}_sbref", ENCODED)
    found = data.runs()[one].fieldmap
    assert found is not None and found.images == (own, reference)
    # what is declared comes first
    declared, _ = data.phasediff(IntendedFor=f"ses-01/func/{one}_bold.nii.gz")
    found = data.runs()[one].fieldmap
    assert found is not None and found.images == (declared,)
    assert data.runs(ignore=("fieldmaps",))[one].fieldmap is None


def test_identifiers_of_references(data: DataSet) -> None:
    bold = data.bold(B0FieldSource="pair", B0FieldIdentifier="pair")
    identified = OPPOSITE | {"B0FieldIdentifier": "pair"}
    data.write("sub-01_ses-02_task-rest_sbref", identified)
    assert "is the B0FieldIdentifier of no image" in data.reason()
    other = data.write("sub-01_ses-01_task-nback_sbref", identified)
    found = data.run().fieldmap
    assert found is not None
    assert (found.images, found.identifier) == ((bold, other), "pair")


def test_other_echoes_of_a_run_are_no_half_of_its_pair(data: DataSet) -> None:
    """The reference, or the first echo, is: of later ones the signal has decayed."""
    names = [f"{RUN}_echo-{k}" for k in (1, 2, 3)]
    pair = {"B0FieldSource": "pair", "B0FieldIdentifier": "pair"}
    bold = [data.bold(name, EchoTime=0.01 * k, **pair) for k, name in enumerate(names, 1)]
    other = data.epi("dir-AP", OPPOSITE, IntendedFor=None, B0FieldIdentifier="pair")
    found = data.acquired(bold[0]).fieldmap
    assert found is not None and found.images == (bold[0], other)
    sbref = data.write(f"{names[0]}_sbref", ENCODED)
    data.write(f"{names[1]}_sbref", ENCODED)
    acquired = data.acquired(bold[0])
    assert acquired.sbref == sbref
    assert acquired.fieldmap is not None and acquired.fieldmap.images == (sbref, other)


def test_undeclared_partners_of_the_same_polarity_are_none(data: DataSet) -> None:
    data.bold("sub-01_ses-01_task-rest_dir-PA")
    data.bold("sub-01_ses-01_task-rest_dir-AP")
    reasons = {(run.no_fieldmap, run.warnings) for run in data.runs().values()}
    assert reasons == {("the data set has no field map of the subject", ())}


# --- several ---------------------------------------------------------------------------------


def test_the_order_of_preference(data: DataSet) -> None:
    """As in fMRIPrep 1: a pair, a map of the field, a phase difference, two phases."""
    data.bold()
    data.write("sub-01_ses-01_magnitude1")
    for number in (1, 2):
        values = {"EchoTime": 0.004 + 0.002 * number, "IntendedFor": TARGET}
        data.write(f"sub-01_ses-01_phase{number}", values)
    kinds = []
    for write in (
        lambda: None,
        lambda: data.phasediff(),
        lambda: data.write("sub-01_ses-01_fieldmap", {"Units": "Hz", "IntendedFor": TARGET}),
        lambda: data.epi("dir-AP", OPPOSITE),
    ):
        write()
        found = data.run().fieldmap
        assert found is not None
        kinds.append(found.kind)
    assert kinds == [PHASES, PHASEDIFF, FIELD, PAIR]


def test_the_nearest_by_name(data: DataSet) -> None:
    """The same acquisition, then one without a label, then one with another; runs by number."""
    run = "sub-01_ses-01_task-rest_acq-mb_run-02"
    data.bold(run)
    target = f"ses-01/func/{run}_bold.nii.gz"
    nearest = ("acq-mb_run-02", "acq-mb_run-01", "acq-mb_run-12", "run-02", "acq-a_run-02")
    images = {
        name: data.phasediff(f"sub-01_ses-01_{name}", IntendedFor=target)[0] for name in nearest
    }
    for name in nearest:
        found = data.runs()[run].fieldmap
        assert found is not None and found.images == (images[name],)
        images[name].unlink()


@pytest.mark.parametrize("where", ["scans", "sidecar"])
def test_the_nearest_in_time(data: DataSet, where: str) -> None:
    """Time precedes names."""
    times = {"run-1": "09:00:00", "run-2": "09:31:00", "run-3": "11:00:00"}
    of_run = {"AcquisitionTime": "09:30:00.2500"} if where == "sidecar" else {}
    data.bold(**of_run)
    images = {}
    for name, at in times.items():
        values = {"AcquisitionTime": at} if where == "sidecar" else {}
        images[name], _ = data.phasediff(f"sub-01_ses-01_{name}", **values)
    if where == "scans":
        rows = ["filename\tacq_time", f"func/{RUN}_bold.nii.gz\t2020-01-01T09:30:00"]
        rows += [f"fmap/{path.name}\t2020-01-01T{times[n]}" for n, path in images.items()]
        table = data.root / "sub-01/ses-01/sub-01_ses-01_scans.tsv"
        table.write_text("\n".join(rows) + "\n")
    found = data.run().fieldmap
    assert found is not None and found.images == (images["run-2"],)


def test_a_field_map_of_another_shim_is_used_and_said(data: DataSet) -> None:
    shim = [1716, -3891, -210, 392, 14, -78, 161, 4]

    def kinds() -> list[str]:
        run = data.run()
        assert run.fieldmap is not None
        return [one.kind for one in run.warnings]

    data.bold(ShimSetting=shim)
    data.phasediff()
    assert kinds() == []
    data.phasediff(ShimSetting=shim)
    assert kinds() == []
    data.phasediff(ShimSetting=[1720, *shim[1:]])
    assert kinds() == ["fieldmap_of_other_shim"]
    data.bold(ShimSetting="unknown")
    assert kinds() == []


# --- what stands in the way ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sidecar", "said"),
    [
        ({"PhaseEncodingDirection": None}, "no PhaseEncodingDirection in its sidecars"),
        ({"PhaseEncodingDirection": None, "PhaseEncodingAxis": "j"}, "lacks the polarity"),
        ({"TotalReadoutTime": None}, "no TotalReadoutTime and no EffectiveEchoSpacing"),
        ({"TotalReadoutTime": 50}, "50 ms are 0.05 s"),
        ({"TotalReadoutTime": None, "WaterFatShift": 11.0}, "needs EPIFactor"),
    ],
)
def test_what_a_run_lacks(data: DataSet, sidecar: dict[str, Any], said: str) -> None:
    data.bold(**sidecar)
    data.phasediff()
    run = data.run()
    assert run.no_fieldmap.startswith(f"{RUN}_bold.nii.gz: ") and said in run.no_fieldmap
    assert _warned(run)


@pytest.mark.parametrize("content", [b"", b"no image", "cut", "missing link"])
def test_a_damaged_field_map_stops_nothing(data: DataSet, content: bytes | str) -> None:
    data.bold()
    phasediff, _ = data.phasediff()
    if content == "cut":
        phasediff.write_bytes(phasediff.read_bytes()[:-20])
    elif content == "missing link":
        phasediff.unlink()
        phasediff.symlink_to("../nowhere")
    elif isinstance(content, bytes):
        phasediff.write_bytes(content)
    run = data.run()
    assert "sub-01_ses-01_phasediff.nii.gz" in run.no_fieldmap
    assert "is not corrected for distortion" in _warned(run)[0]
    assert run.reads == (run.source,)


def test_damage_behind_a_readable_header_is_seen(data: DataSet) -> None:
    """An uncompressed image that is cut short, and a compressed one with a wrong checksum."""
    data.bold()
    phasediff, _ = data.phasediff()
    content = gzip.decompress(phasediff.read_bytes())
    whole = phasediff.read_bytes()
    phasediff.write_bytes(whole[:-8] + bytes(4) + whole[-4:])
    assert "sub-01_ses-01_phasediff.nii.gz" in data.reason()
    phasediff.unlink()
    plain = phasediff.with_name("sub-01_ses-01_phasediff.nii")
    plain.write_bytes(content)
    assert data.run().fieldmap is not None
    plain.write_bytes(content[:-20])
    assert "sub-01_ses-01_phasediff.nii" in data.reason()


def test_a_broken_sidecar_of_a_field_map_stops_nothing(data: DataSet) -> None:
    data.bold()
    phasediff, _ = data.phasediff()
    phasediff.with_name("sub-01_ses-01_phasediff.json").write_text("{broken")
    run = data.run()
    assert "sub-01_ses-01_phasediff.json" in run.no_fieldmap and _warned(run)


@pytest.mark.parametrize("name", ["phasediff", "dir-AP_epi"])
def test_images_of_no_head_are_refused(data: DataSet, name: str) -> None:
    data.bold()
    data.phasediff() if name == "phasediff" else data.epi("dir-AP", OPPOSITE)
    data.write(f"sub-01_ses-01_{name}", shape=(3, 3, 3))
    assert f"sub-01_ses-01_{name}.nii.gz: the image" in data.reason()


def test_several_volumes_of_a_map_are_refused(data: DataSet) -> None:
    data.bold()
    data.phasediff()
    data.write("sub-01_ses-01_phasediff", shape=(*HEAD, 2))
    assert "not one volume" in data.reason()


def test_what_the_user_leaves_out(data: DataSet) -> None:
    data.bold()
    data.phasediff("sub-01_ses-01_acq-a")
    assert data.reason(ignore=("fieldmaps", "sbref")) == "--ignore fieldmaps"
    path = data.root.parent / "filter.json"
    path.write_text(json.dumps({"fmap": {"acquisition": "b"}}))
    assert data.reason(bids_filter_file=path) == "the data set has no field map of the subject"
    path.write_text(json.dumps({"fmap": {"acquisition": "a"}}))
    assert data.run(bids_filter_file=path).fieldmap is not None
    (data.root / ".bidsignore").write_text("fmap/\n")
    assert data.reason() == "the data set has no field map of the subject"


def test_field_maps_of_images_without_orientation(data: DataSet) -> None:
    data.bold()
    data.phasediff()
    for path in data.root.rglob("fmap/*.nii.gz"):
        image = nb.load(path)
        assert isinstance(image, nb.Nifti1Image)
        header = image.header
        header["sform_code"] = header["qform_code"] = 0
        nb.Nifti1Image(np.zeros(HEAD, np.uint8), None, header).to_filename(path)
    assert "does not record which way the axes run" in data.reason()
    assert data.run(assume_orientation="LAS").fieldmap is not None
