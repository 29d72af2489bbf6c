"""The image's stage of resources copies a part of the package: what that part imports is in it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_stage_of_resources_has_what_it_imports(tmp_path: Path) -> None:
    text = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ")
    stage = text.partition("AS resources")[2].partition("\nFROM")[0]
    for words in re.findall(r"^COPY (brainlm_bids.*)$", stage, re.MULTILINE):
        *sources, target = words.split()
        place = tmp_path / target.removeprefix("/src/")
        for source in map(REPOSITORY.joinpath, sources):
            if source.is_dir():
                shutil.copytree(source, place)
                continue
            file = place / source.name if target.endswith("/") else place
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, file)
    # an editable install finds by itself the modules that the stage lacks: ask where each is from
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import brainlm_bids.resources; "
        "import brainlm_bids.resources.packaged; "
        "print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('brainlm_bids')))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    files = done.stdout.split()
    assert len(files) > 5
    assert [file for file in files if not file.startswith(str(tmp_path))] == []
