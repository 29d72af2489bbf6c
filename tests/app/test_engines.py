"""Engines that labs use run the program by the recipes of `workflows/`, and know what it did.

Tests marked `engines` need Nipoppy, Boutiques and Snakemake: `make test-engines` installs them
where nothing else is. Without them they are skipped; with REQUIRED=1 their absence fails.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from every_option import check_understood, invocation, rendered

from brainlm_bids import files
from brainlm_bids.phantom import write_phantom

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPES = REPOSITORY / "workflows"
TOOLS = Path(os.environ.get("BRAINLM_BIDS_ENGINES_BIN", REPOSITORY / ".venv-engines" / "bin"))

pytestmark = pytest.mark.engines
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a command line where the engines and our program are found."""
    missing = [name for name in ("bosh", "nipoppy", "snakemake") if not (TOOLS / name).is_file()]
    if missing:
        text = f"{', '.join(missing)}: not in {TOOLS}; make test-engines installs them"
        (pytest.fail if os.environ.get("REQUIRED") else pytest.skip)(text)
    ours = tmp_path_factory.mktemp("bin")
    program = ours / "brainlm-bids"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m brainlm_bids "$@"\n')
    program.chmod(0o755)
    home = tmp_path_factory.mktemp("home")  # Boutiques and Snakemake keep caches there
    path = os.pathsep.join([str(ours), str(TOOLS), os.environ["PATH"]])
    known = {**os.environ, "PATH": path, "HOME": str(home), "BRAINLM_BIDS_HOME": str(home)}

    def run(*words: object, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
        command = [str(word) for word in words]
        environment = {**known, "COLUMNS": "400", **more}
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)

    return run


def done(call: subprocess.CompletedProcess[str]) -> str:
    """What a call said that has to succeed."""
    assert call.returncode == 0, f"{shlex.join(call.args)}\n{call.stdout}\n{call.stderr}"[-6000:]
    return call.stdout + call.stderr


def statuses(out: Path) -> dict[str, str]:
    """The status of each recording, by the last call's table."""
    table = max((out / "logs").glob("*_status.tsv"), key=lambda path: path.stat().st_mtime_ns)
    return {row["recording"]: row["status"] for row in files.read_rows(table)}


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One simulated recording in a session; without its T1w image it takes half the time."""
    folder = tmp_path_factory.mktemp("engines") / "bids"
    write_phantom(folder, n_subjects=1, n_sessions=1, n_volumes=30, voxel=6.0, seed=1)
    for image in folder.glob("sub-*/ses-*/anat"):
        shutil.rmtree(image)
    return folder


# --- Boutiques -------------------------------------------------------------------------------


def test_boutiques_accepts_the_descriptor_and_passes_every_option_on(
    run: Run, tmp_path: Path
) -> None:
    tool = RECIPES / "boutiques" / "descriptor.json"
    assert "OK" in done(run("bosh", "validate", tool, cwd=tmp_path))
    given = tmp_path / "every.json"

    def simulated(values: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
        given.write_text(json.dumps(values))
        return run("bosh", "exec", "simulate", tool, "-i", given, cwd=tmp_path)

    words = shlex.split(done(simulated(invocation())).strip().splitlines()[-1])
    assert words == rendered(invocation())
    check_understood(words)
    # what the program would refuse is refused before a job is queued
    for wrong in ({"high_pass": 0.01}, {"pooling": "median"}, {"dummy_scans": 1.5}, {"speed": 1}):
        assert simulated({**invocation(), **wrong}).returncode != 0, wrong


def test_boutiques_runs_the_example(run: Run, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "bids").symlink_to(dataset)
    recipe = RECIPES / "boutiques"
    launch = ("bosh", "exec", "launch", "--no-container", "--skip-data-collection")
    told = done(run(*launch, recipe / "descriptor.json", recipe / "invocation.json", cwd=tmp_path))
    out = tmp_path / "demo" / "out"
    assert statuses(out) == {"sub-01_ses-01_task-rest": "done"}
    assert f"{out.relative_to(tmp_path)}/index.html (index" in told
    embeddings = next(out.rglob("*_model-brainlmdemo_desc-recording_embeddings.tsv"))
    assert len(files.read_rows(embeddings)) == 1
    # a call that fails is told as one, with the program's exit code
    given = json.loads((recipe / "invocation.json").read_text())
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps({**given, "participant_label": ["99"]}))
    failed = run(*launch, recipe / "descriptor.json", wrong, cwd=tmp_path)
    assert failed.returncode == 2
    assert "99" in failed.stdout + failed.stderr
