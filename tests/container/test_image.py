"""The image as its users run it, by a real engine: `make test-container` builds it and calls these.

The phantom and a real scan go through the whole job; the rest is who may run it, how it is stopped,
and what it says when memory is short.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import nibabel as nb
import numpy as np
import pytest
from studyforrest_task import STEM, VISUAL, t_of_the_task

from brainlm_bids import __version__, resources
from brainlm_bids.files import read_tsv
from brainlm_bids.phantom import recovered, write_phantom

pytestmark = pytest.mark.container
DOCKER = os.environ.get("DOCKER", "docker")
IMAGE = os.environ.get("BRAINLM_BIDS_TEST_IMAGE", "brainlm-bids:cpu")
UID = 12345  # nobody of that number is in the image
NOBODY = ["--user", f"{UID}:{UID}", "--read-only", "--network", "none"]
# what make demo runs with: nothing is downloaded
DEMO = ["--model", "demo", "--atlas", "A424approx", "--template", "MNI152NLin2009aSym"]
DEMO += ["--offline"]
GB = 10**9


@pytest.fixture(scope="module", autouse=True)
def image() -> SimpleNamespace:
    """What the engine says of the image; a skip where there is no engine or no image."""
    try:
        done = docker("image", "inspect", IMAGE)
    except FileNotFoundError:
        pytest.skip(f"there is no {DOCKER} on this machine")
    if done.returncode != 0:
        pytest.skip(f"no image {IMAGE} ({done.stderr.strip()}); make test-container builds it")
    return SimpleNamespace(**json.loads(done.stdout)[0])


def docker(*arguments: str, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DOCKER, *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


def inside(command: str, *options: str) -> str:
    """What a shell command prints in the image."""
    done = docker("run", "--rm", *options, "--entrypoint", "sh", IMAGE, "-c", command)
    return done.stdout.strip()


def rows(out: Path) -> list[dict[str, str]]:
    tables = sorted((out / "logs").glob("*_status.tsv"), key=lambda path: path.stat().st_mtime)
    with tables[-1].open() as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def owners(folder: Path) -> set[int]:
    return {path.lstat().st_uid for path in folder.rglob("*")}


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """An output folder that anybody may write to."""
    # pytest's own folders are closed to others; those above `out` do not matter to the engine
    folder = tmp_path / "out"
    folder.mkdir()
    folder.chmod(0o777)
    yield folder
    # what another uid wrote is removed by that uid
    user = ["--user", f"{UID}:{UID}", "-v", f"{folder}:/out"]
    docker("run", "--rm", *user, "--entrypoint", "sh", IMAGE, "-c", "rm -rf /out/*")


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "bids"
    write_phantom(folder, n_subjects=1, n_volumes=80, tr=2.0, voxel=5.0, seed=3)
    return folder


# --- what it is ------------------------------------------------------------------------------


def test_labels_entry_and_size(image: SimpleNamespace) -> None:
    labels = image.Config["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.title"] == "brainlm-bids"
    assert image.Config["Entrypoint"] == ["brainlm-bids"]
    assert image.Size <= 2.5 * GB


def test_neither_weights_nor_developers_tools_nor_secrets_are_in_it() -> None:
    names = "-name '*.safetensors' -o -name 'pytorch_model.bin' -o -name 'pip.conf'"
    found = inside(f"find / -xdev -type f \\( {names} \\)").splitlines()
    # the project's own demo checkpoint, which is under its licence
    assert [path.split("/brainlm_bids/")[-1] for path in found] == ["data/demo/model.safetensors"]
    assert inside("ls /weights") == ""
    code = "import importlib.util as u; print([n for n in ('pytest', 'mypy', 'pyarrow', 'ruff') "
    code += "if u.find_spec(n)])"
    assert inside(f'/opt/brainlm-bids/bin/python -c "{code}"') == "[]"
    assert inside("command -v gcc cc make") == ""


def test_everything_can_be_read_by_everybody() -> None:
    unreadable = "find /opt -not -type l \\( -not -perm -o=r -o -type d -not -perm -o=x \\)"
    assert inside(unreadable) == ""


def test_it_says_what_it_was_built_without(phantom: Path, out: Path) -> None:
    record = json.loads(inside("cat /opt/brainlm-bids-resources/baked.json"))
    assert set(record["baked"]) | set(record["missing"]) == {"atlas", "cifti-atlas", "template"}
    mounts = ["-v", f"{phantom}:/data:ro", "-v", f"{out}:/out"]
    done = docker("run", "--rm", *NOBODY, *mounts, IMAGE, "/data", "/out", "participant", *DEMO,
                  "--dry-run")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ("this image was built without" in done.stderr) == bool(record["missing"])


# --- who may run it, and where -----------------------------------------------------------------


def test_any_uid_without_home_without_network_without_a_writable_root() -> None:
    for home in ("", "/nowhere", "/root"):
        done = docker("run", "--rm", *NOBODY, "-e", f"HOME={home}", IMAGE, "--version")
        assert done.stdout.strip() == f"brainlm-bids {__version__}", done.stderr
        assert done.returncode == 0 and done.stderr == ""


def test_weights_that_cannot_be_had_are_said_in_one_line(phantom: Path, out: Path) -> None:
    mounts = ["-v", f"{phantom}:/data:ro", "-v", f"{out}:/out"]
    done = docker("run", "--rm", *NOBODY, *mounts, IMAGE, "/data", "/out", "participant",
                  "--offline", *DEMO[2:6])  # fmt: skip
    assert done.returncode == 2
    assert "the weights 111M" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_folders_of_others_are_said_in_one_line(phantom: Path, tmp_path: Path) -> None:
    closed, mine = tmp_path / "closed", tmp_path / "mine"
    closed.mkdir(mode=0o700)
    mine.mkdir(mode=0o755)
    for data, said in ((closed, "BIDS_DIR /data: cannot be read"), (phantom, "OUTPUT_DIR /out")):
        mounts = ["-v", f"{data}:/data:ro", "-v", f"{mine}:/out"]
        done = docker("run", "--rm", *NOBODY, *mounts, IMAGE, "/data", "/out", "participant", *DEMO)
        assert done.returncode == 2
        last = done.stderr.strip().splitlines()[-1]
        assert said in last and f"user {UID}" in last and "Traceback" not in done.stderr


def test_the_phantom_goes_through_the_whole_job(phantom: Path, out: Path) -> None:
    options = [*NOBODY, "--tmpfs", "/tmp", "-e", "HOME="]
    options += ["-v", f"{phantom}:/data:ro", "-v", f"{out}:/out"]
    done = docker("run", "--rm", *options, IMAGE, "/data", "/out", "participant", *DEMO)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [row["status"] for row in rows(out)] == ["done"]
    assert owners(out) == {UID}
    (row,) = recovered(out, phantom)
    # the truth: head motion within a tenth of a millimetre, series as near as the data allow
    assert row["motion_error_mm"] < 0.1
    assert row["series_clean_r"] > row["oracle_clean_r"] - 0.1
    func = out / "sub-01" / "func"
    sidecar = json.loads(
        next(func.glob("*model-brainlmdemo_desc-windows_embeddings.json")).read_text()
    )
    assert sidecar["Model"]["name"] == "demo" and sidecar["Model"]["untrained"] is False
    assert not list(out.rglob(".tmp-*")) and not list(out.glob(".brainlm*"))
    # the same call again, another work folder: nothing to do
    done = docker("run", "--rm", *options, IMAGE, "/data", "/out", "participant", *DEMO)
    assert done.returncode == 0 and "1 cached" in done.stderr


@pytest.mark.shared
def test_a_real_scan_goes_through_the_whole_job(shared: Path, tmp_path: Path) -> None:
    """Root in the container becomes the owner of OUT; atlas and template as baked into an image."""
    carried = tmp_path / "resources"
    (carried / "atlas").mkdir(parents=True)
    shutil.copy(shared / "atlas" / resources.ATLAS_FILE, carried / "atlas")
    shutil.copytree(shared / "templateflow", carried / "templateflow")
    (carried / "baked.json").write_text('{"baked": {}, "missing": {}}')
    for path in (carried, *carried.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    out = tmp_path / "out"
    out.mkdir()
    if os.getuid() == 0:
        os.chown(out, UID, UID)
    data = shared / "data" / "studyforrest"
    mounts = ["-v", f"{data}:/data:ro", "-v", f"{out}:/out"]
    mounts += ["-v", f"{shared / 'golden' / 'brainlm_tiny'}:/models/brainlm_tiny:ro"]
    mounts += ["-v", f"{carried}:/opt/brainlm-bids-resources:ro"]
    done = docker("run", "--rm", "--network", "none", *mounts, IMAGE, "/data", "/out",
                  "participant", "--model", "/models/brainlm_tiny")  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "built without" not in done.stderr
    assert [row["status"] for row in rows(out)] == ["done"]
    assert owners(out) == {out.stat().st_uid}
    func = out / "sub-02" / "func"
    space = f"{STEM}_space-MNI152NLin6Asym_atlas-A424"
    _, series = read_tsv(func / f"{space}_desc-denoised_timeseries.tsv")
    t = t_of_the_task(series, shared)
    strongest = np.argsort(-np.abs(np.nan_to_num(t)))[:20]
    # the person looks at pictures
    assert (resources.parcels().network_index[strongest] == VISUAL).sum() >= 18
    _, embeddings = read_tsv(func / f"{space}_model-brainlmtiny_desc-windows_embeddings.tsv")
    assert np.isfinite(embeddings).all() and embeddings.shape == (3, 2 + 16)


def test_the_wrapper_runs_it(phantom: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "brainlm_bids.commands.docker",
        str(phantom),
        str(tmp_path / "o"),
    ]
    command += ["participant", "--image", IMAGE, "--weights", str(tmp_path / "w"), *DEMO]
    command += ["--", "--dry-run"]
    path = os.pathsep.join([str(Path(shutil.which(DOCKER) or DOCKER).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"sub-01_task-rest_bold.nii.gz +series, model-brainlmdemo ", done.stdout)
    assert (tmp_path / "o").stat().st_uid == os.getuid()


# --- how it ends --------------------------------------------------------------------------------


def test_sigterm_ends_it_within_ten_seconds(phantom: Path, out: Path) -> None:
    mounts = ["-v", f"{phantom}:/data:ro", "-v", f"{out}:/out"]
    command = ["/data", "/out", "participant", "-v", *DEMO]
    started = docker("run", "-d", *NOBODY, *mounts, IMAGE, *command)
    name = started.stdout.strip()
    try:
        until = time.monotonic() + 120
        # in the middle of a node's work
        while '[Node] Executing "realign"' not in docker("logs", name).stderr:
            assert time.monotonic() < until, docker("logs", name).stderr[-2000:]
            time.sleep(0.2)
        before = time.monotonic()
        docker("stop", "--time", "30", name)
        assert time.monotonic() - before < 10
        state = json.loads(docker("inspect", name).stdout)[0]["State"]
        assert state["ExitCode"] == 143
        assert "stopped; the same command continues" in docker("logs", name).stderr
    finally:
        docker("rm", "-f", "-v", name)
    (row,) = rows(out)
    assert row["status"] == "failed" and "stopped" in row["reason"]
    assert not list(out.rglob(".tmp-*"))


def test_want_of_memory_is_a_failure_that_says_so(tmp_path: Path, out: Path) -> None:
    bids = tmp_path / "bids"
    _write_large(bids)
    options = ["--user", f"{UID}:{UID}", "--network", "none", "--memory", "2g"]
    options += ["--memory-swap", "2g", "-v", f"{bids}:/data:ro", "-v", f"{out}:/out"]
    done = docker("run", "--rm", *options, IMAGE, "/data", "/out", "participant", *DEMO)
    assert done.returncode == 1, done.stderr[-3000:]
    (row,) = rows(out)
    assert row["status"] == "failed"
    assert "out of memory" in row["reason"] and "2.1 GB" in row["reason"]
    assert not list(out.rglob(".tmp-*"))


def test_when_the_program_itself_is_killed_the_exit_code_is_137(phantom: Path, out: Path) -> None:
    options = [*NOBODY, "--memory", "60m", "--memory-swap", "60m"]
    options += ["-v", f"{phantom}:/data:ro", "-v", f"{out}:/out"]
    done = docker("run", "--rm", *options, IMAGE, "/data", "/out", "participant", *DEMO)
    assert done.returncode == 137
    assert "out of memory: the limit of 0.1 GB was reached" in done.stderr


def _write_large(folder: Path) -> None:
    """A run of 3.5 GB once it is read as float32; a hole on the disk."""
    func = folder / "sub-01" / "func"
    func.mkdir(parents=True)
    shape = (96, 96, 60, 1600)
    header = nb.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.int16)
    header.set_zooms((2, 2, 2, 1))
    header.set_sform(np.diag([2.0, 2, 2, 1]), 1)
    header.set_xyzt_units("mm", "sec")
    header["magic"], header["vox_offset"] = b"n+1", 352
    with (func / "sub-01_task-large_bold.nii").open("wb") as stream:
        stream.write(header.binaryblock + bytes(4))
        stream.truncate(352 + 2 * int(np.prod(shape)))
    sidecar = {"TaskName": "large", "RepetitionTime": 1.0}
    (func / "sub-01_task-large_bold.json").write_text(json.dumps(sidecar))
    description = {"Name": "large", "BIDSVersion": "1.8.0"}
    (folder / "dataset_description.json").write_text(json.dumps(description))
