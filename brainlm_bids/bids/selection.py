"""What a call asks for: labels and filters, and what is said where nothing matches them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from brainlm_bids.bids.names import matches, parse
from brainlm_bids.errors import UserError
from brainlm_bids.files import read_json
from brainlm_bids.settings import Settings
from brainlm_bids.values import did_you_mean

# Entities as PyBIDS calls them, with labels; or the content of --bids-filter-file for one kind.
Query = dict[str, object]
# The kinds of images that a filter file selects, by fMRIPrep's names.
FILTERED = ("bold", "t1w", "fmap", "sbref")
# PyBIDS' names of entities -> those in file names.
_ENTITIES = {
    **{"subject": "sub", "session": "ses", "task": "task", "run": "run", "acquisition": "acq"},
    **{"direction": "dir", "reconstruction": "rec", "ceagent": "ce", "echo": "echo"},
    "part": "part",
}


def read_filters(path: Path | None) -> dict[str, Query]:
    """The filters of a --bids-filter-file, by kind of image; UserError for another file."""
    if path is None:
        return {}
    try:
        filters = read_json(path)
    except UserError as error:
        raise UserError(f"--bids-filter-file {error}") from None
    if not all(isinstance(value, dict) for value in filters.values()):
        raise UserError(f'--bids-filter-file {path}: expected {{"bold": {{…}}, "t1w": {{…}}}}')
    unknown = sorted(set(filters) - set(FILTERED))
    if unknown:
        raise UserError(
            f"--bids-filter-file {path}: {unknown[0]!r} is none of {', '.join(FILTERED)}"
        )
    return filters


def wanted_labels(settings: Settings) -> dict[str, list[str]]:
    """Labels that a BOLD run of the selection has, by entity; none: all.

    A filter of --bids-filter-file takes precedence over the option for the same entity. What cannot
    be said as labels is left to PyBIDS.
    """
    wanted = {
        "ses": list(settings.session_label),
        "task": list(settings.task_id),
        "run": list(settings.run_id),
    }
    filters = read_filters(settings.bids_filter_file).get("bold", {})
    for name, entity in _ENTITIES.items():
        if name in filters:
            given = filters[name]
            values = given if isinstance(given, list) else [given]
            plain = all(isinstance(one, str | int) and one not in ("*", "") for one in values)
            wanted[entity] = [str(one) for one in values] if plain else []
    return wanted


def is_selected(name: str, wanted: Mapping[str, Sequence[str]]) -> bool:
    """Whether a name, valid BIDS or not, has the wanted labels."""
    return matches(parse(name).entities, wanted)


def no_match(names: Sequence[str], settings: Settings) -> str:
    """What was asked for that no run is of, and what runs there are."""
    asked, there, hint = [], [], ""
    for flag, entity, labels, word in (
        ("--participant-label", "sub", settings.participant_label, "participants"),
        ("--session-label", "ses", settings.session_label, "sessions"),
        ("--task-id", "task", settings.task_id, "tasks"),
        ("--run-id", "run", settings.run_id, "run numbers"),
    ):
        known = sorted({parse(name).entities.get(entity, "") for name in names} - {""})
        if labels:
            asked.append(f"{flag} {' '.join(labels)}")
        if known:
            there.append(f"{word} {_shown(known)}")
        for label in labels:
            if not any(matches({entity: one}, {entity: [label]}) for one in known):
                hint = hint or did_you_mean(label, known)
    if settings.bids_filter_file is not None:
        asked.append(f"--bids-filter-file {settings.bids_filter_file}")
    if not names:
        return "there is no BOLD run (no file ends in _bold.nii.gz or _bold.nii)"
    what = " ".join(asked) or "the selection"
    return f"no BOLD run matches {what}{hint} (there are {len(names)}, of {'; '.join(there)})"


def _shown(labels: Sequence[str]) -> str:
    return ", ".join(labels[:10]) + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")
