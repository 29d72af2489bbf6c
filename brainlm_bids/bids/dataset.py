"""The files about an output folder as a whole: its description, the labels used, the atlas.

Array jobs write to the same folder: they take turns, and what other calls or the user wrote stays.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from brainlm_bids import __version__
from brainlm_bids.bids.names import build, sidecar_of
from brainlm_bids.bids.outputs import atlas_path, is_a424
from brainlm_bids.bounds import LARGEST_JSON
from brainlm_bids.errors import UserError
from brainlm_bids.files import (
    DATA,
    atomically,
    parse_json,
    read_bytes,
    read_json,
    read_rows,
    read_text,
    write_json,
    write_text,
    write_tsv,
)
from brainlm_bids.locks import locked
from brainlm_bids.temporary import PREFIX, remove_abandoned

BIDS_VERSION = "1.11.0"
CODE_URL = "https://github.com/brainlm-bids/brainlm-bids"
# Seconds that a call waits for another one: the lock is needed for milliseconds.
LOCK_S = 300
NOT_IN_BIDS_YET = (
    "*.html",
    "index.*",
    "figures",
    "*_timeseries.*",
    "*_relmat.*",
    "*_embeddings.*",
    "*_xfm.*",
    "*_fieldmap.*",
    "*_mixing.*",
    "*_metrics.*",
    "*_scaling.*",
    "group_*",
    "*_tokens.*",
    "*_statmap.*",
    "*_null.*",
    "*_model-*",
    "experiment.json",
)


def write_dataset_files(
    output_dir: Path,
    bids_dir: Path | None,
    descriptions: Mapping[str, str],
    derivatives: Mapping[str, Path] | None = None,
    *,
    linked: bool = True,
) -> None:
    """The files of the data set as a whole; array jobs that share the folder take turns.

    bids_dir: None keeps the description of a folder that has one. linked: whether it is a source.
    derivatives: existing ones that are used, by the names of their programs.
    """
    with dataset_lock(output_dir):
        if bids_dir is not None:
            _merge_description(output_dir, bids_dir if linked else None, derivatives or {})
        _merge_lines(output_dir / ".bidsignore", NOT_IN_BIDS_YET)
        _merge_descriptions(output_dir / "descriptions.tsv", descriptions)
        readme = output_dir / "README.md"
        if not readme.exists():
            write_text(readme, read_text(DATA / "README_outputs.md"))


def ignore(output_dir: Path, patterns: Sequence[str]) -> None:
    """Add patterns to the folder's .bidsignore."""
    with dataset_lock(output_dir):
        _merge_lines(output_dir / ".bidsignore", patterns)


@contextlib.contextmanager
def dataset_lock(output_dir: Path) -> Iterator[None]:
    """Hold the lock of an output folder; UserError if another call does not let go of it.

    What calls that were killed with it have left of the data set's own files is removed: commands
    that only read an output folder, and note something there, search it no further.
    """
    with locked(output_dir / "logs" / ".lock", LOCK_S):
        remove_abandoned(output_dir.glob(f"{PREFIX}*"))
        yield


def raw_folder(output_dir: Path) -> Path | None:
    """The folder of the raw data, as recorded in an output folder; None if it is not."""
    from urllib.parse import unquote, urlparse

    try:
        link = read_json(output_dir / "dataset_description.json")["DatasetLinks"]["raw"]
    except (UserError, KeyError, TypeError):
        return None
    address = urlparse(str(link))
    return Path(unquote(address.path)) if address.scheme == "file" else None


def moved_source(output_dir: Path, bids_dir: Path) -> Path | None:
    """The present folder of raw data whose recorded folder is gone; None where nothing is to mend.

    A batch job reads a copy that is removed when it ends: outputs that come from there name a
    folder that nobody can open. A container's mount is kept, as long as it is there.
    """
    recorded = raw_folder(output_dir)
    if recorded is None or recorded.exists() or not read_description(bids_dir):
        return None
    return bids_dir


def read_description(folder: Path) -> dict[str, Any]:
    """The description of a source data set; empty where there is none, or it is damaged.

    Only its name and its DOI are copied: they are not worth refusing a data set for. Older
    editors save it as Latin-1.
    """
    path = folder / "dataset_description.json"
    with contextlib.suppress(UserError):
        content = read_bytes(path, LARGEST_JSON)
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
        return parse_json(path, text)
    return {}


def _merge_description(
    output_dir: Path, bids_dir: Path | None, derivatives: Mapping[str, Path]
) -> None:
    """Add this call's sources to the description; what other calls or the user wrote stays."""
    path = output_dir / "dataset_description.json"
    present = read_json(path) if path.exists() else {}
    links, sources, name = {}, [], "given parcel series"
    if bids_dir is not None:
        raw = read_description(bids_dir)
        links["raw"] = bids_dir.as_uri()
        sources.append({"URL": links["raw"], "DOI": raw.get("DatasetDOI", "n/a")})
        name = raw.get("Name") or bids_dir.name
    made = [{"Name": "brainlm-bids", "Version": __version__, "CodeURL": CODE_URL}]
    for key, folder in derivatives.items():
        source = read_description(folder)
        links[key] = folder.as_uri()
        sources.append({"URL": links[key], "DOI": source.get("DatasetDOI", "n/a")})
        made += _dictionaries(source.get("GeneratedBy"))
    others = [
        one
        for one in _dictionaries(present.get("GeneratedBy"))
        if one.get("Name") != "brainlm-bids"
    ]
    before = present.get("DatasetLinks")
    links = {**(before if isinstance(before, dict) else {}), **links}
    # a data set that moved: its old place is linked no more
    known = _dictionaries(present.get("SourceDatasets"))
    known = [one for one in known if one.get("URL") in links.values()]
    description = {
        "Name": f"brainlm-bids derivatives of {name}",
        **present,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": _once([*made, *others]),
        "SourceDatasets": _once([*sources, *known]),
        "DatasetLinks": links,
    }
    # BIDS wants no empty ones
    description = {key: value for key, value in description.items() if value not in ([], {})}
    if present != description:
        write_json(path, description)


def _dictionaries(values: object) -> list[dict[str, Any]]:
    return [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []


def _once(values: Sequence[object]) -> list[object]:
    """Equal values once, in the order of a canonical text, whoever came first."""
    texts = {json.dumps(value, sort_keys=True): value for value in values}
    return [texts[text] for text in sorted(texts)]


def _merge_lines(path: Path, lines: Sequence[str]) -> None:
    present = read_text(path).splitlines() if path.exists() else []
    missing = [line for line in lines if line not in present]
    if missing:
        write_text(path, "\n".join([*present, *missing]) + "\n")


def _merge_descriptions(path: Path, descriptions: Mapping[str, str]) -> None:
    present: dict[str, str] = {}
    if path.exists():
        rows = read_rows(path)
        present = {row["desc_id"]: row.get("description", "") for row in rows if "desc_id" in row}
    merged = dict(sorted((present | {f"desc-{k}": v for k, v in descriptions.items()}).items()))
    if merged != present:
        write_tsv(path, ["desc_id", "description"], [list(merged), list(merged.values())])


def write_atlas_files(
    output_dir: Path,
    *,
    space: str,
    label: str,
    image: Any,
    table: Mapping[str, Sequence[object]],
    description: Mapping[str, object],
) -> None:
    """The atlas as it was used: `tpl-<space>/…_dseg.{nii.gz,json,tsv}` and its description."""
    image_path = atlas_path(output_dir, space, label)
    last = image_path.with_name(f"{build('', {'tpl': space, 'atlas': label}).stem}_dseg.tsv")
    with dataset_lock(output_dir):
        if not last.exists():  # one per space: the same atlas may be used in two
            with atomically(image_path) as temporary:
                image.to_filename(temporary)
            made = {"Resolution": "2 mm isotropic"} if is_a424(label) else {}
            made |= {"SpatialReference": space}
            write_json(sidecar_of(image_path), {**made, **description})
            write_tsv(last, list(table), list(table.values()))
        if not atlas_description(output_dir, label).exists():
            write_json(atlas_description(output_dir, label), description)


def write_grayordinate_atlas(
    output_dir: Path,
    label: str,
    image: Path,
    table: Mapping[str, Sequence[object]],
    description: Mapping[str, object],
) -> None:
    """A parcellation of grayordinates as it was used: `tpl-fsLR/…_dseg.{dlabel.nii,json,tsv}`."""
    entities = {"tpl": "fsLR", "atlas": label, "den": "91k"}
    folder, stem = output_dir / "tpl-fsLR", build("", entities).stem
    with dataset_lock(output_dir):
        if not (folder / f"{stem}_dseg.tsv").exists():
            with atomically(folder / f"{stem}_dseg.dlabel.nii") as temporary:
                temporary.write_bytes(image.read_bytes())
            write_json(folder / f"{stem}_dseg.json", {"Density": "91k", **description})
            write_tsv(folder / f"{stem}_dseg.tsv", list(table), list(table.values()))
        if not atlas_description(output_dir, label).exists():
            write_json(atlas_description(output_dir, label), description)


def atlas_description(output_dir: Path, label: str) -> Path:
    """Where the description of an atlas lies in an output folder."""
    return output_dir / f"atlas-{label}_description.json"
