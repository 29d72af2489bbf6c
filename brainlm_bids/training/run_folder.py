"""The folder of a run: it is claimed for one set of options, so that results never mix."""

from pathlib import Path
from typing import Any

from brainlm_bids import __version__, files
from brainlm_bids.errors import UserError
from brainlm_bids.temporary import PREFIX, remove_abandoned

RECORD = "experiment.json"


def claim(folder: Path, about: dict[str, Any]) -> None:
    """Claim a new or empty folder, or continue in one that was claimed for the same.

    Parameters
    ----------
    folder
        The folder.
    about
        Command, Parameters and whatever else the results depend on.

    Raises
    ------
    UserError
        If the folder holds something else.
    """
    path = folder / RECORD
    remove_abandoned(folder.glob(f"{PREFIX}*-{RECORD}"))  # killed while it claimed the folder
    if path.is_file():
        try:
            recorded = files.read_json(path)
        except UserError as error:
            raise UserError(f"{error}; give a new folder") from None
        requested = files.json_value(about)
        if {key: recorded.get(key) for key in requested} != requested:
            raise UserError(
                f"{folder}: holds the results of {recorded.get('Command')} with other "
                f"parameters{_difference(recorded, requested)}; give another folder"
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder}: is neither empty nor an experiment; give a new folder")
    made = {"GeneratedBy": {"Name": "brainlm-bids", "Version": __version__}}
    files.write_json(path, {**about, **made})


def _difference(recorded: dict[str, Any], requested: dict[str, Any]) -> str:
    """The first parameter that differs, for the message."""
    old, new = recorded.get("Parameters"), requested["Parameters"]
    if not isinstance(old, dict):
        return ""
    name = next((key for key in new if old.get(key) != new[key]), None)
    return "" if name is None else f" ({name}: {old.get(name)}, now {new[name]})"
