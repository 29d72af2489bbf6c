"""The group's tables of as many recordings as a test wants, with maps whose places are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from brainlm_bids import files
from brainlm_bids.bids.outputs import Naming

SPACE, ATLAS, STEM, LABEL = "MNI152NLin6Asym", "A424", "group_task-rest", "brainlmdemo"
HOSTILE = "<script>alert(1)</script>"
SITES = ("a", "b", '"><img src=x onerror=alert(2)>')


def group_naming(folder: Path) -> Naming:
    return Naming(str(folder), STEM, SPACE, ATLAS, "cohort")


def write_table(path: Path, columns: dict[str, list[Any]], sidecar: dict[str, Any]) -> None:
    files.write_tsv(path, list(columns), list(columns.values()))
    files.write_json(path.with_suffix(".json"), sidecar)


def write_group(folder: Path, n: int, *, umap: bool = True, pages: bool = True) -> Naming:
    """Recordings of n subjects on a grid (embedding) and at random (the other features).

    Variables: `age`, of which every tenth value is missing; `site`, of which one has a hostile
    name; and one whose own name is hostile.
    """
    naming, rng = group_naming(folder), np.random.default_rng(0)
    width = len(str(n))
    people = [f"sub-{k:0{width}d}" for k in range(n)]
    stems = [f"{one}_task-rest" for one in people]
    keys = {"participant_id": people, "session_id": [None] * n, "task": ["rest"] * n}
    keys |= {"run": [None] * n, "recording": stems}
    side = int(np.ceil(np.sqrt(n)))
    grid = np.array([[k % side, k // side] for k in range(n)], dtype=float)
    maps: dict[str, list[float]] = {}
    about: dict[str, Any] = {}
    for method in ("pca", "umap") if umap else ("pca",):
        for kind in ("embedding", "connectivity", "untrained"):
            exact = (kind, method) == ("embedding", "pca")
            points = grid if exact else rng.standard_normal((n, 2))
            name = f"{kind}_{method}"
            maps |= {f"{name}_{k + 1}": points[:, k].tolist() for k in range(2)}
            about[name] = {"Features": kind, "Method": method.upper()}
            if method == "pca":
                about[name] |= {"VarianceOfAxes": [0.5, 0.25]}
                about[name]["VarianceShares"] = {"age": {"AboveChance": 0.6, "P": 0.001}}
            else:
                about[name] |= {"Neighbours": 15, "MinimumDistance": 0.1, "Seed": 42}
                about[name] |= {"SoftwareVersion": "0.5.12"}
    write_table(naming.path("group_map", model=LABEL), {**keys, **maps}, {"Maps": about})
    age = [None if k % 10 == 9 else 20 + k % 60 for k in range(n)]
    variables = {"age": age, "site": [SITES[k % 3] for k in range(n)]}
    variables |= {HOSTILE: [k % 7 for k in range(n)]}
    kinds = {"age": "number", "site": "category", HOSTILE: "number"}
    path = naming.path("group_variables", model=LABEL)
    write_table(path, {"recording": stems, **variables}, {"Kinds": kinds})
    columns = ("variable", "type", "features", "measure", "value", "low", "high", "chance", "p")
    shares = {"embedding": 0.25, "connectivity": 0.5, "untrained": -0.01}
    rows = [
        ("age", "number", kind, "variance_share_adjusted", value, None, None, 0.0, 0.002)
        for kind, value in shares.items()
    ]
    write_table(
        naming.path("group_confounding", model=LABEL),
        {name: [row[k] for row in rows] for k, name in enumerate(columns)},
        {},
    )
    write_table(
        naming.path("group_embeddings", model=LABEL),
        {**keys, "cls_0000": [0.0] * n},
        {"Model": {"label": LABEL, "licence": "MIT"}},
    )
    quality = {"status": ["included"] * n, "reason": [None] * n}
    quality |= {"mean_fd": rng.uniform(0.05, 0.3, n).round(4).tolist(), "coverage": [1.0] * n}
    write_table(naming.path("group_recordings"), {**keys, **quality}, {})
    for one in people if pages else ():
        files.write_text(folder / f"{one}.html", "<!DOCTYPE html><title>subject</title>")
    return naming
