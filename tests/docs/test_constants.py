"""The page of constants says what the code says."""

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "brainlm_bids"
PAGE = ROOT / "docs" / "reference" / "constants.md"
if not PAGE.is_file():
    pytest.skip("the documentation is not here (the image with the tests)", allow_module_level=True)

# Rooms whose constants a result depends on.
ROOMS = (
    *("bids", "cohort", "experiments", "export", "interfaces", "model", "parcels", "preproc"),
    "training",
)
# Upper-case names with a number in them that are no constants of a method: streams of random
# numbers, empty arrays, sizes of blocks, and the table of architectures.
NOT_CONSTANTS = {
    *("ARCHITECTURES", "NOTHING", "ORDER", "TRAINING", "VALIDATION", "TEST"),
    *("BATCH", "SHARD", "BLOCK_VOXELS", "WAITING_TIME", "LOCK_S"),
}


class Row(NamedTuple):
    """One row of the page: a module of the package, a name in it, and its value."""

    module: str
    name: str
    value: Any


def rows() -> list[Row]:
    found, module = [], ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"### `(.+)`", line):
            module = heading[1]
        elif row := re.match(r"\| `([^`]+)` \| `([^`]+)` \|", line):
            found.append(Row(module, row[1], ast.literal_eval(row[2])))
    return found


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.module}:{row.name}")
def test_every_constant_on_the_page_has_that_value(row: Row) -> None:
    dotted = row.module.removesuffix(".py").replace("/", ".")
    module = importlib.import_module(f"brainlm_bids.{dotted}")
    if match := re.fullmatch(r"(\w+)\((\w+)\)", row.name):
        value = inspect.signature(getattr(module, match[1])).parameters[match[2]].default
    else:
        value = getattr(module, row.name)
    if isinstance(value, dict):
        assert value == row.value
    else:
        np.testing.assert_array_equal(np.array(value), np.array(row.value))


def test_no_constant_is_missing_on_the_page() -> None:
    listed = {(row.module, row.name) for row in rows()}
    missing = [f"{module}:{name}" for module, name in sorted(_constants() - listed)]
    assert not missing, f"add to docs/reference/constants.md: {', '.join(missing)}"


def _constants() -> set[tuple[str, str]]:
    """Public upper-case names of the rooms whose values are made of numbers."""
    found = set()
    for path in (path for room in ROOMS for path in (PACKAGE / room).rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.Assign) or not _has_number(node.value):
                continue
            targets = [name for target in node.targets for name in ast.walk(target)]
            names = {target.id for target in targets if isinstance(target, ast.Name)}
            found |= {
                (path.relative_to(PACKAGE).as_posix(), name)
                for name in names - NOT_CONSTANTS
                if name.isupper() and not name.startswith("_")
            }
    return found


def _has_number(node: ast.expr) -> bool:
    return any(
        isinstance(part, ast.Constant) and type(part.value) in (int, float)
        for part in ast.walk(node)
    )
