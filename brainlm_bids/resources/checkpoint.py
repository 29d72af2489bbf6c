"""The checkpoint: from a name or a path to the folder of the weights and their licence."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from brainlm_bids.errors import UserError
from brainlm_bids.files import file_sha256, read_json, write_json, write_text
from brainlm_bids.notices import Kind, Notice, notice
from brainlm_bids.resources.cache import (
    SOURCES,
    TIMEOUT,
    Sources,
    chosen_home,
    download,
    is_present,
    reason_of,
    writable_home,
)
from brainlm_bids.resources.labels import (
    ORIGIN_FILE,
    PUBLISHED,
    SUMS_FILE,
    WEIGHTS_LICENCE,
    model_label,
    published_name,
    recorded_sums,
    stated_licence,
)
from brainlm_bids.values import did_you_mean

MODEL_REPOSITORY = "vandijklab/brainlm"
MODEL_REVISION = "4c54e0cccf920d9d6af7c647cb866fc19c60cf26"
RANDOM_MODELS = ("tiny", "demo", "13M", "111M", "650M")
DEMO_FOLDER = Path(__file__).parents[1] / "data" / "demo"
DEMO = notice(
    Kind.DEMO_MODEL,
    "The model is the small demo checkpoint that comes with brainlm-bids, pretrained on simulated "
    "recordings: it shows how the program works and says nothing about brains.",
)
UNTRAINED = notice(
    Kind.UNTRAINED_MODEL,
    "The model is untrained (random weights): its results are a control.",
)


@dataclass(frozen=True)
class ModelResource:
    """A checkpoint, or an architecture with seeded random weights.

    Attributes
    ----------
    name
        As given by the user.
    label
        As in file names.
    path
        Folder with config.json and the weights; None for random weights.
    random
        Whether the weights are random.
    sha256
        Checksum of the weights.
    source, licence
        Origin and licence.
    warnings
        For the sidecar of every output.
    """

    name: str
    label: str
    path: Path | None
    random: bool
    sha256: str | None
    source: str
    licence: str
    warnings: tuple[Notice, ...] = ()

    def about(self) -> dict[str, str | None]:
        """Describe the model for sidecars.

        Returns
        -------
        dict
            name, sha256, source and licence.
        """
        return {key: getattr(self, key) for key in ("name", "sha256", "source", "licence")}


def find_model(
    spec: str,
    *,
    home: Path | None = None,
    offline: bool = False,
    sources: Sources = SOURCES,
) -> ModelResource | None:
    """Find a checkpoint. Nothing is ever substituted for what was requested.

    Parameters
    ----------
    spec
        111M, 650M, 13M (the published weights: cache, else download), demo (a small checkpoint that
        comes with the package), random:<architecture>, none, or a folder with config.json and
        model.safetensors or pytorch_model.bin.
    home
        Folder of the cache.
    offline
        Whether downloads are forbidden.
    sources
        Addresses of downloads.

    Returns
    -------
    ModelResource or None
        None for "none".

    Raises
    ------
    UserError
        For any other name, for weights that are not available, and for cached weights that differ
        from those of the first use.

    Examples
    --------
    >>> find_model("random:tiny").label
    'randomtiny'
    """
    if spec == "none":
        return None
    if spec in PUBLISHED:
        folder = _published_model(spec, chosen_home(home), offline, sources)
        sha256 = _check_sums(folder)
        source = f"{MODEL_REPOSITORY}@{MODEL_REVISION}/{PUBLISHED[spec]}"
        return ModelResource(
            spec, model_label(spec), folder, False, sha256, source, WEIGHTS_LICENCE
        )
    if spec == "demo":
        sha256 = file_sha256(weights_file(DEMO_FOLDER))
        source = "packaged with brainlm-bids, pretrained on simulated recordings"
        return ModelResource(
            spec, model_label(spec), DEMO_FOLDER, False, sha256, source, "Apache-2.0", (DEMO,)
        )
    if spec.startswith("random:"):
        known = [f"random:{name}" for name in RANDOM_MODELS]
        if spec not in known:
            raise UserError(
                f"--model {spec}: the untrained models are {', '.join(known)}"
                f"{did_you_mean(spec, known)}"
            )
        source = "seeded random weights, untrained"
        return ModelResource(
            spec, model_label(spec), None, True, None, source, "Apache-2.0", (UNTRAINED,)
        )
    folder = Path(spec).expanduser()
    if not folder.is_dir():
        names = (*PUBLISHED, "demo", "none", *(f"random:{name}" for name in RANDOM_MODELS))
        raise UserError(
            f"--model {spec}: neither a folder nor one of {', '.join(PUBLISHED)}, "
            f"demo, random:NAME, none{did_you_mean(spec, names)}"
        )
    sha256 = file_sha256(weights_file(folder))
    published = published_name(folder, sha256, chosen_home(home))
    label = model_label(published or folder.resolve().name)
    licence = WEIGHTS_LICENCE if published else stated_licence(folder)
    return ModelResource(spec, label, folder, False, sha256, str(folder.resolve()), licence)


def weights_file(folder: Path) -> Path:
    """Return the weights of a checkpoint folder.

    Parameters
    ----------
    folder
        Of the checkpoint.

    Returns
    -------
    Path
        model.safetensors, else pytorch_model.bin.

    Raises
    ------
    UserError
        If the folder is incomplete.
    """
    if not is_present(folder / "config.json"):
        raise UserError(f"{folder}: no config.json in this checkpoint folder")
    for name in ("model.safetensors", "pytorch_model.bin"):
        if is_present(folder / name):
            return folder / name
    raise UserError(f"{folder}: neither model.safetensors nor pytorch_model.bin in this folder")


def _published_model(name: str, home: Path | None, offline: bool, sources: Sources) -> Path:
    ways_out = (
        f"run `brainlm fetch {name}` on a machine with network (into BRAINLM_BIDS_HOME), or pass "
        f"--model FOLDER or --model random:{name}"
    )
    if home is not None:
        folder = home / "models" / PUBLISHED[name]
        try:
            weights_file(folder)
            return folder
        except UserError:
            pass  # missing, or an incomplete download: it is downloaded below
    if offline:
        raise UserError(f"the weights {name} are not in {home}, and --offline is set; {ways_out}")
    try:
        return _fetch_model(name, writable_home(home), sources)
    except UserError as error:
        raise UserError(f"the weights {name} are not available ({error}); {ways_out}") from error


def _fetch_model(name: str, home: Path, sources: Sources) -> Path:
    """Download a checkpoint; an interrupted download is resumed.

    The hub's client is used for addresses, checksums and the user's token only: when it gives up,
    it deletes what it has downloaded, which may be gigabytes.
    """
    import huggingface_hub as hub

    folder = home / "models" / PUBLISHED[name]
    for file in ("config.json", "pytorch_model.bin"):
        remote = f"{PUBLISHED[name]}/{file}"
        url = hub.hf_hub_url(
            MODEL_REPOSITORY, remote, revision=MODEL_REVISION, endpoint=sources.hub
        )
        try:
            etag = hub.get_hf_file_metadata(url, timeout=TIMEOUT[0], endpoint=sources.hub).etag
        except Exception as error:  # httpx's, requests' and the hub's own, by version
            raise UserError(f"cannot download {url}: {reason_of(error)}") from error
        # for large files the hub's etag is the sha256, for small ones that of git
        sha256 = etag if etag is not None and len(etag) == 64 else None
        if sha256 is None and file != "config.json":
            raise UserError(
                f"cannot download {url}: the server does not tell the checksum of the weights, as "
                "the hub does; is it the page of a login or of a proxy?"
            )
        headers = hub.utils.build_hf_headers()
        download(url, folder / file, sha256, resumable=sha256 is not None, headers=headers)
        if file == "config.json":
            _check_json(url, folder / file)
    record_origin(folder, name, _check_sums(folder))
    return folder


def _check_json(url: str, file: Path) -> None:
    """Keep no page of a login or of a proxy in place of a file whose checksum is not known."""
    try:
        read_json(file)
    except UserError as error:
        file.unlink(missing_ok=True)
        raise UserError(f"cannot download {url}: what was sent is no JSON file") from error


def record_origin(folder: Path, name: str, sha256: str) -> None:
    """Write beside weights which published ones they are, so that a copy is still recognised.

    Parameters
    ----------
    folder
        Of the weights.
    name
        A key of `PUBLISHED`.
    sha256
        Checksum of the file of weights in this folder.
    """
    origin = {
        "Name": name,
        "Sha256": sha256,
        "Source": f"{MODEL_REPOSITORY}@{MODEL_REVISION}/{PUBLISHED[name]}",
        "Licence": WEIGHTS_LICENCE,
    }
    write_json(folder / ORIGIN_FILE, origin)


def _check_sums(folder: Path) -> str:
    """Compare config and weights with the checksums of their first use; return the weights' one."""
    weights = weights_file(folder)
    sums = {path.name: file_sha256(path) for path in (folder / "config.json", weights)}
    record = folder / SUMS_FILE
    if not is_present(record):
        text = "".join(f"{sha256}  {name}\n" for name, sha256 in sums.items())
        with contextlib.suppress(OSError):  # a read-only cache: the sidecars have the sha256
            write_text(record, text)
        return sums[weights.name]
    recorded = recorded_sums(folder)
    for name, sha256 in sums.items():
        if recorded.get(name) != sha256:
            raise UserError(
                f"{folder / name} is not the file of its first use (sha256 {sha256}, recorded in "
                f"{record.name}: {recorded.get(name)}); delete {folder} and fetch it again"
            )
    return sums[weights.name]
