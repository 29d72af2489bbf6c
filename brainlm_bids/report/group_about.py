"""How the page of a cohort came to be: calls of the group level, inputs, versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brainlm_bids.bids.calls import read_call
from brainlm_bids.bids.outputs import Naming
from brainlm_bids.report.about import About, CallShown, Item, changed_settings, notes_on
from brainlm_bids.report.run_records import mapping
from brainlm_bids.report.status import group_calls
from brainlm_bids.report.values import as_list, read_json

# Array jobs have a call each, and many calls may have added to a cohort: the latest are shown
MOST_CALLS = 5


def about_group(
    naming: Naming, labels: Sequence[str], recordings: Mapping[str, Any], version: str
) -> About:
    """What there is to say about the origin of a cohort's page.

    Parameters
    ----------
    naming
        Of the group's files.
    labels
        Of the models.
    recordings
        Sidecar of the table of recordings.
    version
        Of this program.
    """
    folder = Path(naming.output_dir)
    sidecars = [recordings]
    sidecars += [
        read_json(naming.existing("group_embeddings", model=label, extension=".json"))
        for label in labels
    ]
    calls = [read_call(folder, name) for name in group_calls(folder)[-MOST_CALLS:]]
    return About(
        version,
        tuple(_folder(read_json(folder / "dataset_description.json"))),
        tuple(CallShown(one, "group", "", changed_settings(one.settings)) for one in calls),
        tuple(_versions(sidecars)),
        tuple((name, items) for name, items in _inputs(naming, sidecars) if items),
    )


def _folder(description: Mapping[str, Any]) -> list[tuple[str, str]]:
    tools = [mapping(tool) for tool in as_list(description.get("GeneratedBy"))]
    rows = [
        ("Folder written by", f"{tool['Name']} {tool.get('Version', '')}".strip())
        for tool in tools
        if tool.get("Name")
    ]
    if description.get("BIDSVersion"):
        rows.append(("BIDS", str(description["BIDSVersion"])))
    return rows


def _versions(sidecars: Sequence[Mapping[str, Any]]) -> list[tuple[str, tuple[Item, ...]]]:
    found: dict[str, dict[Item, None]] = {}
    for sidecar in sidecars:
        own = mapping(sidecar.get("GeneratedBy")).get("Version")
        versions = {"brainlm-bids": own, **mapping(sidecar.get("SoftwareVersions"))}
        for name, version in versions.items():
            if version:
                found.setdefault(name, {})[Item(str(version))] = None
    return [(name, tuple(items)) for name, items in found.items()]


def _inputs(
    naming: Naming, sidecars: Sequence[Mapping[str, Any]]
) -> list[tuple[str, tuple[Item, ...]]]:
    recordings, *of_models = sidecars
    scaling = [str(recordings["ScalingStatistics"])] if recordings.get("ScalingStatistics") else []
    models = [mapping(sidecar.get("Model")) for sidecar in of_models]
    return [
        ("Recordings", (Item("those of the table of recordings, from this folder"),)),
        ("Scaling statistics", tuple(Item(text) for text in scaling)),
        ("Atlas", (Item(naming.atlas),)),
        ("Template", (Item(naming.space),)),
        (
            "Checkpoint",
            tuple(
                Item(str(one["label"]), notes_on(one, "source", "sha256"))
                for one in models
                if one.get("label")
            ),
        ),
    ]
