"""Puts into an image what it may carry: the atlas and the template. Never weights.

Usage: bake.py FROM TO. In: FROM, a folder laid out as the cache of `brainlm fetch` (what lies there
is checked and copied), else the network. Out: TO, laid out the same, with `baked.json`: what is
there, and why something is not. What cannot be had is said, and does not stop the build.
"""

import json
import shutil
import sys
from pathlib import Path

from brainlm_bids import resources
from brainlm_bids.errors import UserError

WORDS = ("atlas", "cifti-atlas", "template")
FOLDERS = ("atlas", "templateflow")


def bake(source: Path, target: Path, sources: resources.Sources = resources.SOURCES) -> dict:
    """Fill `target`; returns {"baked": {word: file}, "missing": {word: reason}}."""
    target.mkdir(parents=True, exist_ok=True)
    for name in FOLDERS:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, dirs_exist_ok=True)
    record: dict[str, dict[str, str]] = {"baked": {}, "missing": {}}
    for word in WORDS:
        try:
            (path,) = resources.fetch([word], home=target, sources=sources)
            record["baked"][word] = path.relative_to(target).as_posix()
        except UserError as error:
            print(f"NOT IN THE IMAGE: {word}: {error}", file=sys.stderr)
            record["missing"][word] = str(error)
    (target / "baked.json").write_text(json.dumps(record, indent=2) + "\n")
    return record


if __name__ == "__main__":
    bake(Path(sys.argv[1]), Path(sys.argv[2]))
