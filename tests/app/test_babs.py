"""BABS: its configuration, and three subjects through it on a real SLURM with Apptainer.

The test marked `cluster` needs SLURM, Apptainer and BABS: `make test-cluster`.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from real_engines import (
    SOMEBODY,
    as_somebody,
    folder_for_all,
    name_of_somebody,
    need_babs,
    need_image,
    need_slurm,
    start_as_somebody,
    wait_for,
)

from brainlm_bids import files
from brainlm_bids.commands import bids_app

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPE = REPOSITORY / "workflows" / "babs" / "brainlm-bids.yaml"
EMBEDDED = {"--atlas": "A424approx", "--template": "MNI152NLin2009aSym", "--model": "demo"}
NAME = "brainlm-bids-0-1-0"
JOBS = NAME[:3]  # as BABS calls them
# A job knows one subject, and its own folders. These tell what a call processed, when and where.
OF_THE_CALL = re.compile(r"logs/.*|index\.(html|json|tsv)|dataset_description\.json|sub-\w+\.html")


def configuration() -> dict[str, Any]:
    return yaml.safe_load(RECIPE.read_text())


def words(config: dict[str, Any]) -> list[str]:
    """The options as BABS 0.5.4 puts them into a job's script."""
    found = []
    for key, value in config["bids_app_args"].items():
        if not key.startswith("$"):
            found += [key] if value in ("", None) else [key, str(value)]
    return found


@pytest.mark.parametrize("level", ["subject", "session"])
def test_the_program_takes_the_options_of_the_configuration(
    level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "8192")
    config = configuration()
    given = config["bids_app_args"]
    line = [os.path.expandvars(word) for word in words(config) if word != "$BABS_TMPDIR"]
    line.insert(line.index("-w") + 1, str(tmp_path / "work"))
    line += [given["$SUBJECT_SELECTION_FLAG"], "sub-01"]
    if level == "session":
        flag = re.search(r"# \$SESSION_SELECTION_FLAG: \"(\S+)\"", RECIPE.read_text())
        assert flag is not None
        line += [flag[1], "ses-02"]
    folders = [tmp_path / "bids", tmp_path / "out"]
    folders[0].mkdir()
    settings = bids_app.parse([*map(str, folders), "participant", *line])
    assert settings.participant_label == ("01",)
    assert settings.session_label == (("02",) if level == "session" else ())
    assert (settings.nprocs, settings.offline, settings.model) == (2, True, ("111M",))


def test_what_babs_makes_of_the_configuration_holds_together() -> None:
    config = configuration()
    [(folder, version)] = config["zip_foldernames"].items()
    # a data set of zip files is named after the folder, and its name becomes a variable of a shell
    assert re.fullmatch(r"\w+", folder)
    assert re.fullmatch(r"\d+-\d+-\d+", version)
    assert config["all_results_in_one_zip"] is True
    # BABS adds a filter file where the name has `prep` in it, with suffixes that are not ours
    assert "prep" not in NAME
    preamble = ["bash", "-n", "-c", config["script_preamble"]]
    assert subprocess.run(preamble, check=False).returncode == 0


# --- on real engines ----------------------------------------------------------------------------


class Project:
    """A BABS project, its data and its container, of somebody who is not root."""

    def __init__(self, folder: Path, programs: Path, image: Path, phantoms: Path) -> None:
        self.folder, self.image = folder, image
        self.raw, self.containers = folder / "raw", folder / "containers"
        self.root, self.merged = folder / "project", folder / "merged"
        self.started: list[subprocess.Popen[str]] = []
        for name in ("home", "scratch"):
            (folder / name).mkdir()
        (folder / "home/.gitconfig").write_text("[user]\nname = Some Body\nemail = s@example.org\n")
        path = f"{programs}:/usr/local/bin:/usr/bin:/bin"
        self.environment = {
            "PATH": path, "HOME": str(folder / "home"), "PYTHONPATH": "",
            "USER": name_of_somebody(), "LOGNAME": name_of_somebody(),
        }  # fmt: skip
        shutil.copytree(phantoms, self.raw, ignore=shutil.ignore_patterns("derivatives"))
        if os.getuid() == 0:
            for one in [folder, *folder.rglob("*")]:
                os.chown(one, SOMEBODY, SOMEBODY)

    def call(self, command: str, folder: Path | None = None) -> str:
        done = as_somebody(shlex.split(command), self.environment, folder or self.folder)
        assert done.code == 0, f"{command}\n{done.said[-6000:]}"
        return done.said

    def configure(self) -> Path:
        """The configuration of the repository, with what it asks to change."""
        config = configuration()
        config["input_datasets"]["BIDS"]["origin_url"] = str(self.raw)
        config["bids_app_args"] |= EMBEDDED
        weights = [one for one in config["singularity_args"] if "/weights" in one]
        config["singularity_args"].remove(weights[0])
        limits = {"number_of_cpus": "1", "hard_memory_limit": "2500M"}
        config["cluster_resources"] |= {**limits, "hard_runtime_limit": "00:20:00"}
        activate, *rest = config["script_preamble"].splitlines()
        assert activate.startswith("source ")
        exports = [f"export {key}={self.environment[key]}" for key in ("PATH", "HOME")]
        config["script_preamble"] = "\n".join([*exports, *rest]) + "\n"
        config["job_compute_space"] = str(self.folder / "scratch")
        path = self.folder / "brainlm-bids.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        return path

    def one_call(self, out: Path) -> "subprocess.Popen[str]":
        """All subjects in one call of the same image, started."""
        options = shlex.join(word for pair in EMBEDDED.items() for word in pair)
        command = (
            f"apptainer run --cleanenv --no-home --bind {self.folder} {self.image} "
            f"{self.raw} {out} participant --offline --nprocs 2 -w {self.folder}/work {options}"
        )
        process = start_as_somebody(shlex.split(command), self.environment, self.folder)
        self.started.append(process)
        return process

    def logs(self) -> str:
        logs = sorted(self.root.glob(f"analysis/logs/{JOBS}.[eo]*"))
        return "\n".join(f"== {one.name}\n{one.read_text()[-2500:]}" for one in logs)

    def over(self) -> bool:
        jobs = f"squeue --noheader --user {self.environment['USER']} --name {JOBS}"
        return not self.call(jobs).strip()


@pytest.fixture
def project(three_phantoms: Path) -> Iterator[Project]:
    need_slurm()
    image, programs = need_image(), need_babs()
    with folder_for_all() as folder:
        one = Project(folder, programs, image, three_phantoms)
        yield one
        for process in one.started:
            process.terminate()
            process.wait()
        user = one.environment["USER"]
        subprocess.run(["scancel", f"--user={user}", f"--name={JOBS}"], check=False)
        # git-annex protects what it stores
        subprocess.run(["chmod", "-R", "u+w", folder], check=False)


def contents(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items()}


@pytest.mark.cluster
def test_babs_gives_the_bytes_of_one_call(project: Project) -> None:
    """All files of every subject, from the merged branch: as from one call with all of them."""
    project.call(f"datalad create --force -d {project.raw}")
    project.call(f"datalad save -d {project.raw} -m phantoms")
    assert all(path.is_symlink() for path in project.raw.glob("sub-*/func/*"))
    together = project.folder / "together"
    one_call = project.one_call(together)
    project.call(f"datalad create {project.containers}")
    project.call(f"datalad containers-add {NAME} --url {project.image}", project.containers)
    project.call(
        f"babs init {project.root} --container-ds {project.containers} --container-name {NAME} "
        f"--container-config {project.configure()} --processing-level subject --queue slurm"
    )
    said = project.call(f"babs check-setup {project.root} --job-test")
    assert "All good in test job!" in said

    project.call(f"babs submit {project.root}")
    wait_for(project.over, 600)
    status = project.call(f"babs status {project.root}")
    assert "All jobs are completed!" in status, f"{status}\n{project.logs()}"
    assert not list((project.folder / "scratch").iterdir()), "a job leaves nothing behind"

    said = one_call.communicate()[0]
    assert one_call.returncode == 0, said[-3000:]
    project.call(f"babs merge {project.root}")
    project.call(f"datalad clone ria+file://{project.root}/output_ria#~data {project.merged}")
    zips = [f"sub-0{number}_brainlm_bids-0-1-0.zip" for number in (1, 2, 3)]
    project.call(f"datalad get {' '.join(zips)}", project.merged)
    unzipped = project.folder / "brainlm_bids"
    for number, name in enumerate(zips, start=1):
        with zipfile.ZipFile(project.merged / name) as packed:
            inside = {one.split("/")[1] for one in packed.namelist()}
            assert {one for one in inside if re.fullmatch(r"sub-\d+", one)} == {f"sub-0{number}"}
            packed.extractall(project.folder)
    apart, at_once = contents(unzipped), contents(together)
    compared = {name for name in at_once if not OF_THE_CALL.fullmatch(name)}
    assert {name for name in apart if not OF_THE_CALL.fullmatch(name)} == compared
    assert sum(name.endswith("_embeddings.tsv") for name in compared) >= 3
    assert [name for name in sorted(compared) if apart[name] != at_once[name]] == []
    group_level(project.raw, unzipped, project.folder / "group")


def group_level(raw: Path, out: Path, work: Path) -> None:
    """On the unzipped outputs it has everybody, and links the data that are still there."""
    link = json.loads((out / "dataset_description.json").read_text())["DatasetLinks"]["raw"]
    assert "/scratch/job-" in link
    options = [word for pair in EMBEDDED.items() for word in pair]
    command = [sys.executable, "-m", "brainlm_bids", raw, out, "group", "--offline", *options]
    done = subprocess.run([*command, "-w", work], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    everybody = [f"sub-0{number}" for number in (1, 2, 3)]
    for table in (next(out.glob("group_*_embeddings.tsv")), out / "index.tsv"):
        assert sorted({row["participant_id"] for row in files.read_rows(table)}) == everybody
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetLinks"]["raw"] == raw.as_uri()
