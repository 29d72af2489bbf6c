"""Constraints with the oldest versions that pyproject.toml allows: `name>=1.2` becomes `name==1.2`.

Usage: oldest.py [EXTRA...] > constraints.txt. What the dependencies depend on is left to pip.
torch is left out: its old builds for CPUs are not on PyPI.
"""

import re
import sys
import tomllib
from pathlib import Path

LEFT_OUT = ("torch",)


def oldest(requirements: list[str]) -> list[str]:
    """Pin each requirement to its lower bound.

    >>> oldest(["nibabel>=5.2", "nipype>=1.10,<2", "torch>=2.4"])
    ['nibabel==5.2', 'nipype==1.10']
    """
    pins = []
    for requirement in requirements:
        match = re.match(r"([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?\s*>=\s*([0-9][^,;\s]*)", requirement)
        if match is None:
            raise SystemExit(f"pyproject.toml: {requirement!r} has no lower bound")
        if match[1] not in LEFT_OUT:
            pins.append(f"{match[1]}=={match[2]}")
    return pins


def main() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(name for extra in sys.argv[1:] for name in extras[extra])]
    print("\n".join(oldest(wanted)))


if __name__ == "__main__":
    main()
