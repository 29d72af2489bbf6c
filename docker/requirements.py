"""Prints the requirements of a pyproject.toml, a line each: those of the package, or of an extra.

Usage: requirements.py PYPROJECT [EXTRA]
"""

import sys
import tomllib
from pathlib import Path


def requirements(pyproject: Path, extra: str | None = None) -> list[str]:
    """The `dependencies`, or those of an extra."""
    project = tomllib.loads(pyproject.read_text())["project"]
    found = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    return list(found)


if __name__ == "__main__":
    print("\n".join(requirements(Path(sys.argv[1]), *sys.argv[2:3])))
