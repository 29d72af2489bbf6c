"""Resources: what is found, in which order, and what happens when it is broken, absent or refused.

Downloads are tested against a server on this machine whose faults are chosen per test.
"""

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from brainlm_bids import resources
from brainlm_bids.errors import UserError
from brainlm_bids.resources import Sources
from brainlm_bids.resources.labels import model_label

# a port of this machine where nobody listens: refused at once
NOWHERE = Sources("http://127.0.0.1:9/A424.nii.gz", "http://127.0.0.1:9/tf", "http://127.0.0.1:9")


class Server(ThreadingHTTPServer):
    """Serves `content` by path, as the hub does; counts requests.

    `cut`: the first body is cut short; `linked`: large files, which lie elsewhere (302, with the
    sum of what is there); `supply`: bytes that are left to give before the network is gone;
    `knows_ranges`: whether parts can be had.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.cut: set[str] = set()
        self.etag: dict[str, str] = {}
        self.linked: set[str] = set()
        self.supply: dict[str, int] = {}
        self.knows_ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def sources(self) -> Sources:
        return Sources(f"{self.url}/atlas.nii.gz", f"{self.url}/tf", self.url)


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def _answer(self, with_body: bool) -> None:
        self.close_connection = True
        wanted = self.headers.get("Range") if self.server.knows_ranges else None
        self.server.requests.append((self.command, self.path, wanted))
        path = self.path.removeprefix("/elsewhere")
        body = self.server.content.get(path)
        if body is None:
            return self._head(404, {"Content-Length": "0"})
        etag = self.server.etag.get(path, hashlib.sha256(body).hexdigest())
        headers = {"X-Repo-Commit": resources.MODEL_REVISION, "ETag": f'"{etag}"'}
        if path in self.server.linked and path == self.path:
            there = {"Location": f"{self.server.url}/elsewhere{path}", "Content-Length": "0"}
            there |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(body))}
            return self._head(302, headers | there | {"ETag": '"of the pointer"'})
        start = int(wanted.split("=")[1].split("-")[0]) if wanted else 0
        if start and start >= len(body):
            return self._head(416, {"Content-Length": "0"})
        self._head(206 if start else 200, headers | {"Content-Length": str(len(body) - start)})
        if with_body:
            self.wfile.write(self._what_arrives(path, body[start:]))

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Connection": "close"}).items():
            self.send_header(name, value)
        self.end_headers()

    def _what_arrives(self, path: str, part: bytes) -> bytes:
        if path in self.server.cut:
            self.server.cut.discard(path)
            return part[: len(part) // 2]
        if path in self.server.supply:
            part = part[: self.server.supply[path]]
            self.server.supply[path] -= len(part)
        return part

    def do_GET(self) -> None:
        self._answer(True)

    def do_HEAD(self) -> None:
        self._answer(False)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(autouse=True)
def own_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cache, no TemplateFlow and no proxy of the machine that the tests run on."""
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    for name in ("BRAINLM_BIDS_HOME", "TEMPLATEFLOW_HOME", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch, server: Server) -> bytes:
    """A small stand-in for the published atlas, served and pinned."""
    content = b"an atlas of many bytes" * 1000
    monkeypatch.setattr(resources.atlas, "ATLAS_SHA256", hashlib.sha256(content).hexdigest())
    server.content["/atlas.nii.gz"] = content
    return content


def _kinds(resource: Any) -> list[str]:
    return [warning.kind for warning in resource.warnings]


def _text(resource: Any) -> str:
    return " ".join(warning.text for warning in resource.warnings)


def labels_image(path: Path, labels: np.ndarray) -> str:
    nib.save(nib.Nifti1Image(labels, resources.MNI_2MM_AFFINE), path)
    return str(path)


# ---- what is packaged --------------------------------------------------------------------------


def test_parcels() -> None:
    parcels = resources.parcels()
    assert parcels.index.tolist() == list(range(1, 425))
    assert len(set(parcels.names)) == 424
    assert parcels.xyz.shape == (424, 3)
    # AA-7: the visual network holds 65 parcels (the published table)
    assert np.bincount(parcels.network_index).tolist() == [0, 65, 40, 109, 68, 100, 23, 19]
    assert len(set(zip(parcels.network_index.tolist(), parcels.network, strict=True))) == 7
    x, side = parcels.xyz[:, 0], np.array(parcels.hemisphere)
    assert (x[side == "L"] <= 0).all() and (x[side == "R"] >= 0).all()
    assert np.abs(x[side == "B"]).max() <= 4 and (side == "B").sum() == 8


@pytest.mark.shared
def test_parcels_are_the_published_ones(shared: Path) -> None:
    parcels = resources.parcels()
    published = np.loadtxt(shared / "atlas" / "A424_Coordinates.dat")
    np.testing.assert_array_equal(parcels.index, published[:, 0])
    np.testing.assert_array_equal(parcels.xyz, published[:, 1:])
    rows = (shared / "atlas" / "A424_labels.csv").read_text("utf-8-sig").splitlines()[1:]
    cells = [row.split(",") for row in rows]
    assert [c[1] for c in cells] == list(parcels.names)
    assert [c[3:6] for c in cells] == [
        [str(i), short, name]
        for i, short, name in zip(
            parcels.network_index, parcels.network, parcels.network_name, strict=True
        )
    ]


def test_approximate_atlas() -> None:
    labels, affine = resources.approximate_atlas()
    assert labels.shape == (91, 109, 91) and labels.dtype == np.int16
    assert np.unique(labels).tolist() == list(range(425))
    # every labelled voxel lies within reach of its centroid (a flipped axis would not)
    voxels = np.argwhere(labels)
    points = voxels @ affine[:3, :3].T + affine[:3, 3]
    distance = np.linalg.norm(points - resources.parcels().xyz[labels[labels > 0] - 1], axis=1)
    assert distance.max() <= 12.0


@pytest.mark.shared
def test_approximate_atlas_agrees_in_half_of_the_voxels(shared: Path) -> None:
    real, _ = resources.find_atlas(str(shared / "atlas" / "A424+2mm.nii.gz")).load()
    rough, _ = resources.approximate_atlas()
    both = (real > 0) & (rough > 0)
    shared_voxels = (real == rough)[both].mean()
    of_real = ((real == rough) & both).sum() / (real > 0).sum()
    # measured 0.583 and 0.435; the docstring and the warning say "about half"
    assert shared_voxels == pytest.approx(0.583, abs=0.02)
    assert of_real == pytest.approx(0.435, abs=0.02)


def test_tissue_maps_and_masks_lie_in_one_space() -> None:
    maps = resources.tissue_maps()
    masks = resources.aroma_masks()
    assert maps.grey_matter.max() == maps.white_matter.max() == 1.0
    # sizes of the original ICA-AROMA masks
    assert [int(m.sum()) for m in (masks.csf, masks.edge, masks.out)] == [7396, 70408, 670927]
    np.testing.assert_array_equal(masks.affine, resources.MNI_2MM_AFFINE)
    # ventricles are neither grey nor white: the masks and the maps agree on where that is
    voxels = np.argwhere(masks.csf) @ masks.affine[:3, :3].T + masks.affine[:3, 3]
    inverse = np.linalg.inv(maps.affine)
    i, j, k = np.rint(voxels @ inverse[:3, :3].T + inverse[:3, 3]).astype(int).T
    assert (maps.grey_matter + maps.white_matter)[i, j, k].mean() < 0.5
    middle = np.rint(inverse[:3, :3] @ [-28, -10, 30] + inverse[:3, 3]).astype(int)
    assert maps.white_matter[tuple(middle)] > 0.8


def test_import_is_light() -> None:
    code = (
        "import sys, brainlm_bids.resources, brainlm_bids.commands.brainlm; "
        "print([m for m in ('torch', 'pandas', 'nilearn', 'nibabel', 'requests', 'scipy', "
        "'huggingface_hub') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# ---- the atlas ---------------------------------------------------------------------------------


def test_atlas_by_name_approximate() -> None:
    atlas = resources.find_atlas("A424approx", offline=True)
    assert (atlas.label, atlas.approximate, atlas.path) == ("A424approx", True, None)
    assert atlas.space == "MNI152NLin2009aSym" and _kinds(atlas) == ["approximate_atlas"]
    assert len(atlas.sha256) == 64 and atlas.load()[0].max() == 424


@pytest.mark.parametrize("offline", [True, False])
def test_atlas_that_cannot_be_had(tmp_path: Path, offline: bool) -> None:
    atlas = resources.find_atlas(None, home=tmp_path, offline=offline, sources=NOWHERE)
    assert atlas.label == "A424approx" and _kinds(atlas) == ["approximate_atlas"]
    assert ("switched off" if offline else "cannot download") in _text(atlas)
    with pytest.raises(UserError, match="brainlm fetch atlas"):
        resources.find_atlas("A424", home=tmp_path, offline=offline, sources=NOWHERE)
    assert not list(tmp_path.rglob("*A424*"))


def test_atlas_downloaded_once_then_from_the_cache(
    server: Server, pinned: bytes, tmp_path: Path
) -> None:
    atlas = resources.find_atlas(None, home=tmp_path, sources=server.sources)
    assert (atlas.label, atlas.approximate, atlas.warnings) == ("A424", False, ())
    assert atlas.path is not None and atlas.path.read_bytes() == pinned
    assert [p.name for p in (tmp_path / "atlas").iterdir()] == ["A424+2mm.nii.gz"]
    assert resources.find_atlas("A424", home=tmp_path, offline=True) == atlas
    resources.find_atlas(None, home=tmp_path, sources=server.sources)
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", ["truncated", "other file", "not found"])
def test_atlas_download_that_goes_wrong(
    server: Server, pinned: bytes, tmp_path: Path, fault: str
) -> None:
    if fault == "truncated":
        server.cut.add("/atlas.nii.gz")
    elif fault == "other file":
        server.content["/atlas.nii.gz"] = b"a page that asks for a login"
    else:
        del server.content["/atlas.nii.gz"]
    with pytest.raises(UserError) as caught:
        resources.fetch(["atlas"], home=tmp_path, sources=server.sources, report=lambda _: None)
    assert "\n" not in str(caught.value)
    if fault == "other file":
        assert "sha256" in str(caught.value)
    assert list((tmp_path / "atlas").iterdir()) == []  # neither the file nor its part


def test_atlas_damaged_in_the_cache(server: Server, pinned: bytes, tmp_path: Path) -> None:
    cached = tmp_path / "atlas" / "A424+2mm.nii.gz"
    cached.parent.mkdir()
    cached.write_bytes(pinned[:-1])
    atlas = resources.find_atlas(None, home=tmp_path, offline=True)
    assert atlas.approximate and "another sha256" in _text(atlas)
    assert not resources.find_atlas(None, home=tmp_path, sources=server.sources).approximate
    assert cached.read_bytes() == pinned


def test_unwritable_cache(server: Server, pinned: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")  # also refuses root, unlike permissions
    home = tmp_path / "file" / "cache"
    with pytest.raises(UserError, match="cannot write"):
        resources.fetch(["atlas"], home=home, sources=server.sources, report=lambda _: None)
    assert resources.find_atlas(None, home=home, sources=server.sources).approximate
    assert resources.find_template(None, home=home, offline=True).t1w is None
    with pytest.raises(UserError, match="random:13M"):
        resources.find_model("13M", home=home, sources=server.sources)


def test_user_without_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", staticmethod(no_home))
    assert resources.cache_home() is None
    assert resources.find_atlas(None, sources=NOWHERE).approximate
    assert resources.find_template(None, sources=NOWHERE).t1w is None
    with pytest.raises(UserError, match="BRAINLM_BIDS_HOME"):
        resources.fetch(["atlas"], sources=NOWHERE)


def test_cache_folder_of_the_environment(
    server: Server, pinned: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resources.cache_home() == tmp_path / "user" / ".cache" / "brainlm-bids"
    monkeypatch.setenv("BRAINLM_BIDS_HOME", str(tmp_path / "elsewhere"))
    (path,) = resources.fetch(["atlas"], sources=server.sources, report=lambda _: None)
    assert path == tmp_path / "elsewhere" / "atlas" / "A424+2mm.nii.gz"


def test_custom_atlas(tmp_path: Path) -> None:
    labels = np.zeros((30, 30, 30), np.int16)
    labels.flat[:420] = np.arange(1, 421)
    atlas = resources.find_atlas(labels_image(tmp_path / "mine.nii.gz", labels))
    assert atlas.label == "A424custom" and not atlas.approximate
    assert "4 of the 424 labels have no voxel" in _text(atlas)
    np.testing.assert_array_equal(atlas.load()[0], labels)
    assert atlas.load()[0].dtype == np.int16


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.ones((4, 4, 4, 2), np.int16), "4-D"),
        (np.full((4, 4, 4), 425, np.int16), "425"),
        (np.full((4, 4, 4), -1, np.int16), "-1"),
        (np.full((4, 4, 4), 70000, np.int32), "70000"),
        (np.full((4, 4, 4), 1.5, np.float32), "whole numbers"),
        (np.full((4, 4, 4), np.nan, np.float32), "whole numbers"),
        (np.zeros((4, 4, 4), np.int16), "no label"),
    ],
)
def test_file_that_is_no_atlas(tmp_path: Path, labels: np.ndarray, said: str) -> None:
    with pytest.raises(UserError, match=said):
        resources.find_atlas(labels_image(tmp_path / "bad.nii.gz", labels))


def test_an_atlas_whose_header_does_not_tell_left_from_right_is_refused(tmp_path: Path) -> None:
    labels = np.arange(1, 28, dtype=np.int16).reshape(3, 3, 3)
    header = nib.Nifti1Image(labels, resources.MNI_2MM_AFFINE).header
    header["sform_code"] = header["qform_code"] = 0
    nib.Nifti1Image(labels, None, header).to_filename(tmp_path / "atlas.nii")
    with pytest.raises(UserError, match=r"atlas\.nii: its header does not record which way"):
        resources.find_atlas(str(tmp_path / "atlas.nii"))


def test_atlas_that_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        resources.find_atlas(str(tmp_path / "absent.nii.gz"))
    (tmp_path / "text.nii.gz").write_text("not an image")
    with pytest.raises(UserError, match="cannot be read"):
        resources.find_atlas(str(tmp_path / "text.nii.gz"))
    whole = Path(labels_image(tmp_path / "whole.nii.gz", np.ones((40, 40, 40), np.int16)))
    (tmp_path / "cut.nii.gz").write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be read"):
        resources.find_atlas(str(tmp_path / "cut.nii.gz"))


@pytest.mark.shared
def test_published_atlas_is_recognised_under_any_name(shared: Path, tmp_path: Path) -> None:
    copy = tmp_path / "renamed.nii.gz"
    copy.write_bytes((shared / "atlas" / "A424+2mm.nii.gz").read_bytes())
    atlas = resources.find_atlas(str(copy))
    assert (atlas.label, atlas.warnings) == ("A424", ())
    labels, affine = atlas.load()
    assert np.unique(labels).tolist() == list(range(425)) and (labels == 405).sum() == 1
    np.testing.assert_array_equal(affine, resources.MNI_2MM_AFFINE)
    # label 120 is missing in the other published volume
    other = resources.find_atlas(str(shared / "atlas" / "A424.nii.gz"))
    assert other.label == "A424custom" and "1 of the 424" in _text(other)


# ---- the template ------------------------------------------------------------------------------


def templateflow_folder(folder: Path, resolution: int, empty: bool = False) -> Path:
    directory = folder / "tpl-MNI152NLin6Asym"
    directory.mkdir(parents=True, exist_ok=True)
    for name in resources.template._template_names(resolution):
        if empty:
            (directory / name).touch()
        else:
            labels_image(directory / name, np.ones((5, 5, 5), np.uint8))
    return folder


def test_template_of_templateflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = templateflow_folder(tmp_path / "tf", 1)
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(folder))
    template = resources.find_template(None, home=tmp_path, offline=True)
    assert (template.space, template.resolution) == ("MNI152NLin6Asym", 1)
    assert not template.warnings and not template.skull_stripped
    templateflow_folder(folder, 2)  # 2 mm is preferred
    template = resources.find_template("MNI152NLin6Asym", home=tmp_path, offline=True)
    assert template.resolution == 2 and template.t1w is not None
    assert template.load_brain_mask()[0].dtype == bool and template.load_brain_mask()[0].all()
    assert template.load_t1w()[0].dtype == np.float32
    approx = resources.find_template(None, offline=True, atlas_space="MNI152NLin2009aSym")
    assert _kinds(approx) == ["space_mismatch"]


def test_stub_of_templateflow_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(templateflow_folder(tmp_path / "tf", 2, True)))
    template = resources.find_template(None, home=tmp_path, offline=True)
    assert template.space == "MNI152NLin2009aSym" and "embedded_template" in _kinds(template)
    with pytest.raises(UserError, match="brainlm fetch template"):
        resources.find_template("MNI152NLin6Asym", home=tmp_path, offline=True)


def test_template_download(server: Server, tmp_path: Path) -> None:
    served = templateflow_folder(tmp_path / "served", 2)
    for file in served.rglob("*.nii.gz"):
        server.content[f"/tf/{file.relative_to(served)}"] = file.read_bytes()
    template = resources.find_template(None, home=tmp_path / "cache", sources=server.sources)
    assert template.space == "MNI152NLin6Asym" and len(server.requests) == 2
    assert resources.find_template(None, home=tmp_path / "cache", offline=True) == template
    assert len(server.requests) == 2


@pytest.mark.parametrize("fault", ["cut", "empty", "login page"])
def test_template_download_that_goes_wrong(server: Server, tmp_path: Path, fault: str) -> None:
    served = templateflow_folder(tmp_path / "served", 2)
    for file in served.rglob("*.nii.gz"):
        path = f"/tf/{file.relative_to(served)}"
        page = {"cut": file.read_bytes(), "empty": b"", "login page": b"<html>"}
        server.content[path] = page[fault]
        if fault == "cut":
            server.cut.add(path)
    template = resources.find_template(None, home=tmp_path / "cache", sources=server.sources)
    assert template.space == "MNI152NLin2009aSym"
    reasons = {
        "cut": "IncompleteRead",
        "empty": "only 0 of some bytes",
        "login page": "not an image",
    }
    assert reasons[fault] in _text(template)
    assert not list((tmp_path / "cache").rglob("*.nii.gz*"))


def test_parcellation_download(server: Server, tmp_path: Path) -> None:
    """TemplateFlow's client finds both files, by the names that it gives them."""
    folder = "/tf/tpl-MNI152NLin6Asym/tpl-MNI152NLin6Asym_{}atlas-Schaefer2018_desc-"
    name = f"{folder}200Parcels7Networks_dseg"
    data = np.zeros((4, 4, 4), np.uint8)
    data[0], data[1] = 1, 2
    nib.Nifti1Image(data, np.eye(4)).to_filename(tmp_path / "labels.nii.gz")
    labels = (tmp_path / "labels.nii.gz").read_bytes()
    server.content[f"{name.format('res-02_')}.nii.gz"] = labels
    server.content[f"{name.format('')}.tsv"] = b"<html>"  # a login page
    with pytest.raises(UserError, match="not a table"):
        resources.find_parcellation("Schaefer200x7", home=tmp_path, sources=server.sources)
    server.content[f"{name.format('')}.tsv"] = b"index\tname\tcolor\n1\ta\t#000\n2\tb\t#000\n"
    found = resources.find_parcellation("Schaefer200x7", home=tmp_path, sources=server.sources)
    assert found.labelled.names.tolist() == ["a", "b"] and found.warnings == ()
    n_requests = len(server.requests)
    again = resources.find_parcellation("Schaefer200x7", home=tmp_path, offline=True)
    assert again == found and len(server.requests) == n_requests


def test_embedded_template() -> None:
    template = resources.find_template("MNI152NLin2009aSym", atlas_space="MNI152NLin2009aSym")
    assert not template.warnings and template.skull_stripped and template.resolution == 2
    data, affine = template.load_t1w()
    mask, mask_affine = template.load_brain_mask()
    np.testing.assert_array_equal(affine, mask_affine)
    assert data.dtype == np.float32 and mask.dtype == bool and data.shape == mask.shape
    assert np.abs(np.diag(affine)[:3]).tolist() == [2, 2, 2]
    # 1.9 litres: the ICBM average is larger than a brain; nothing bright lies outside the mask
    assert 1.7 < mask.sum() * 8e-6 < 2.0
    assert data[~mask].max() < 0.25 * data.max() < np.median(data[mask])
    with pytest.raises(UserError, match="choose MNI152NLin6Asym"):
        resources.find_template("MNI152NLin2009cAsym")


# ---- the checkpoint ----------------------------------------------------------------------------


WEIGHTS = f"/vandijklab/brainlm/resolve/{resources.MODEL_REVISION}/vitmae_111M/pytorch_model.bin"


def serve_model(server: Server, size: int = 300_000) -> bytes:
    weights = np.random.default_rng(1).bytes(size)
    config = WEIGHTS.replace("pytorch_model.bin", "config.json")
    server.content |= {config: b"{}", WEIGHTS: weights}
    server.etag[config] = "a1" * 20  # small files carry a git sha1
    server.linked.add(WEIGHTS)
    return weights


def parts_of_weights(server: Server) -> list[int]:
    """Where the downloads of the weights began."""
    asked = [w for verb, p, w in server.requests if (verb, p) == ("GET", f"/elsewhere{WEIGHTS}")]
    return [int(wanted[6:].split("-")[0]) if wanted else 0 for wanted in asked]


def test_model_download_cache_and_sums(server: Server, tmp_path: Path) -> None:
    weights = serve_model(server)
    said: list[str] = []
    (folder,) = resources.fetch(["111M"], home=tmp_path, sources=server.sources, report=said.append)
    assert "CC BY-NC-ND 4.0" in said[0]
    assert folder == tmp_path / "models" / "vitmae_111M"
    model = resources.find_model("111M", home=tmp_path, offline=True)
    assert model is not None and model.path == folder and not model.random
    assert model.sha256 == hashlib.sha256(weights).hexdigest()
    assert (model.name, model.label) == ("111M", "brainlm111M")
    sums = (folder / "SHA256SUMS").read_text()
    assert f"{model.sha256}  pytorch_model.bin\n" in sums and "config.json" in sums

    (folder / "pytorch_model.bin").write_bytes(weights[:-1] + b"\0")
    with pytest.raises(UserError, match="first use"):
        resources.find_model("111M", home=tmp_path, offline=True)


def test_model_download_goes_on_by_itself(server: Server, tmp_path: Path) -> None:
    weights = serve_model(server, size=2_000_000)
    server.cut.add(WEIGHTS)
    model = resources.find_model("111M", home=tmp_path, sources=server.sources)
    assert model is not None and model.sha256 == hashlib.sha256(weights).hexdigest()
    first, second = parts_of_weights(server)
    assert first == 0 and 700_000 < second <= 1_000_000  # of the last 256 kB some may be lost


def test_model_download_resumes_in_another_call(server: Server, tmp_path: Path) -> None:
    weights = serve_model(server, size=2_000_000)
    server.supply[WEIGHTS] = 1_500_000
    with pytest.raises(UserError, match="cannot download"):
        resources.fetch(["111M"], home=tmp_path, sources=server.sources, report=lambda _: None)
    folder = tmp_path / "models" / "vitmae_111M"
    assert not (folder / "pytorch_model.bin").exists() and not (folder / "SHA256SUMS").exists()
    server.requests.clear()
    del server.supply[WEIGHTS]
    resources.fetch(["111M"], home=tmp_path, sources=server.sources, report=lambda _: None)
    (start,) = parts_of_weights(server)
    assert 1_200_000 < start <= 1_500_000
    assert (folder / "pytorch_model.bin").read_bytes() == weights
    found = sorted(path.name for path in folder.iterdir())
    expected = ["SHA256SUMS", "config.json", "origin.json", "pytorch_model.bin"]
    assert found == expected  # nothing else is left


def test_model_download_where_parts_cannot_be_had(server: Server, tmp_path: Path) -> None:
    weights = serve_model(server, size=2_000_000)
    server.knows_ranges = False
    server.cut.add(WEIGHTS)
    model = resources.find_model("111M", home=tmp_path, sources=server.sources)
    assert model is not None and model.sha256 == hashlib.sha256(weights).hexdigest()


@pytest.mark.parametrize("size", [1000, 300_000, 400_000])
def test_model_download_over_a_damaged_part(server: Server, tmp_path: Path, size: int) -> None:
    weights = serve_model(server)
    folder = tmp_path / "models" / "vitmae_111M"
    folder.mkdir(parents=True)
    sha256 = hashlib.sha256(weights).hexdigest()
    (folder / f".pytorch_model.bin.{sha256[:16]}.part").write_bytes(b"x" * size)
    with pytest.raises(UserError, match="has the sha256"):
        resources.find_model("111M", home=tmp_path, sources=server.sources)
    model = resources.find_model("111M", home=tmp_path, sources=server.sources)
    assert model is not None and model.sha256 == sha256


def test_model_asked_for_by_several_at_once(server: Server, tmp_path: Path) -> None:
    weights = serve_model(server, size=2_000_000)

    def find(_: int) -> str | None:
        model = resources.find_model("111M", home=tmp_path, sources=server.sources)
        return None if model is None else model.sha256

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(find, range(4)))
    assert found == [hashlib.sha256(weights).hexdigest()] * 4
    assert parts_of_weights(server) == [0]


def test_fetch_on_the_command_line(server: Server, tmp_path: Path) -> None:
    """As a user calls it, the hub being this machine; the address is read at the first import."""
    weights = serve_model(server)
    program = [
        sys.executable,
        "-m",
        "brainlm_bids.commands.brainlm",
        "fetch",
        "111M",
        "--home",
        str(tmp_path),
    ]
    environment = os.environ | {"HF_ENDPOINT": server.url}
    done = subprocess.run(program, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "CC BY-NC-ND 4.0" in done.stdout.splitlines()[0]
    folder = tmp_path / "models" / "vitmae_111M"
    assert (folder / "pytorch_model.bin").read_bytes() == weights
    assert str(folder) in done.stdout


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_download_shows_its_progress(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_model(server)
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    resources.fetch(["111M"], home=tmp_path, sources=server.sources, report=lambda _: None)
    assert "downloading pytorch_model.bin" in screen.getvalue()
    assert "/0.3 MB " in screen.getvalue()


def test_model_with_wrong_sum(server: Server, tmp_path: Path) -> None:
    serve_model(server)
    server.etag[WEIGHTS] = "0" * 64
    with pytest.raises(UserError, match=r"has the sha256 .*, expected 0{64}: not kept"):
        resources.find_model("111M", home=tmp_path, sources=server.sources)
    folder = tmp_path / "models" / "vitmae_111M"
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".lock"]


@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.parametrize("name", ["111M", "650M", "13M"])
def test_model_that_cannot_be_had(tmp_path: Path, name: str, offline: bool) -> None:
    with pytest.raises(UserError) as caught:
        resources.find_model(name, home=tmp_path, offline=offline, sources=NOWHERE)
    text = str(caught.value)
    assert "\n" not in text and f"brainlm fetch {name}" in text and "--model FOLDER" in text


def test_model_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # `make demo` leaves a folder of that name where it runs
    assert resources.find_model("none") is None
    for name in resources.RANDOM_MODELS:
        model = resources.find_model(f"random:{name}", offline=True)
        assert model is not None and model.random and model.path is None and model.sha256 is None
        assert model.label == f"random{name}"
    for word in ("random:huge", "random:", "12M"):
        with pytest.raises(UserError, match="--model"):
            resources.find_model(word, offline=True)
    with pytest.raises(UserError, match=r"neither a folder nor .*; did you mean 111M\?"):
        resources.find_model("111m", offline=True)


def test_model_folder(tmp_path: Path) -> None:
    folder = tmp_path / "my_model-v2"
    folder.mkdir()
    with pytest.raises(UserError, match=r"config\.json"):
        resources.find_model(str(folder))
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match="neither"):
        resources.find_model(str(folder))
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "model.safetensors").write_bytes(b"tensors")
    model = resources.find_model(str(folder))
    assert model is not None and model.label == "mymodelv2"
    assert model.sha256 == hashlib.sha256(b"tensors").hexdigest()
    # nothing is written into a folder of the user
    assert len(list(folder.iterdir())) == 3


def test_read_only_cache_of_weights(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "old_13M"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"weights")
    folder.chmod(0o555)
    model = resources.find_model("13M", home=tmp_path, offline=True)
    folder.chmod(0o755)
    assert model is not None and model.sha256 == hashlib.sha256(b"weights").hexdigest()
    if os.geteuid() != 0:
        assert not (folder / "SHA256SUMS").exists()


@pytest.mark.parametrize(
    ("source", "label"),
    [
        ("111M", "brainlm111M"),
        ("13M", "brainlm13M"),
        ("random:13M", "random13M"),
        ("random:tiny", "randomtiny"),
        ("brainlm_tiny", "brainlmtiny"),
        ("vitmae_650M", "vitmae650M"),  # a folder: its name proves nothing
    ],
)
def test_model_label(source: str, label: str) -> None:
    assert model_label(source) == label


def checkpoint_folder(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(weights)
    return folder


def found(folder: Path, home: Path) -> tuple[str, str]:
    model = resources.find_model(str(folder), home=home)
    assert model is not None
    return model.label, model.licence


def test_published_weights_are_recognised_by_their_sum_and_not_by_a_name(tmp_path: Path) -> None:
    home = tmp_path / "home"
    mine = checkpoint_folder(tmp_path / "vitmae_111M", b"mine")
    assert found(mine, home) == ("vitmae111M", "not stated in the folder of the weights")
    cached = checkpoint_folder(home / "models" / "vitmae_111M", b"theirs")
    resources.find_model("111M", home=home)  # notes the sums
    copy = checkpoint_folder(tmp_path / "copy", b"theirs")
    label, licence = found(copy, home)
    assert label == "brainlm111M" and licence.startswith("CC BY-NC-ND 4.0")
    sha256 = hashlib.sha256(b"theirs").hexdigest()
    (copy / "origin.json").write_text(json.dumps({"Name": "111M", "Sha256": sha256}))
    assert found(copy, tmp_path / "elsewhere")[0] == "brainlm111M"
    (copy / "pytorch_model.bin").write_bytes(b"tuned")  # the note is of other weights now
    assert found(copy, home) == ("copy", "not stated in the folder of the weights")
    assert cached.is_dir()


@pytest.mark.parametrize(
    ("file", "text", "licence"),
    [
        ("README.md", "---\nlicense: cc-by-nc-nd-4.0\n---\n# card\n", "CC BY-NC-ND 4.0 (https"),
        ("../README.md", "---\ntags: [x]\nlicense: 'mit'\n---\n", "mit"),
        ("README.md", "license: mit, says the text\n", "not stated"),
        ("config.json", '{"license": "apache-2.0"}', "apache-2.0"),
        ("LICENSE", "\nMIT License\n\nPermission is", "MIT License"),
        (
            "training.json",
            '{"StartedFrom": {"Licence": "CC BY-NC-ND 4.0 (x)"}}',
            "CC BY-NC-ND 4.0 (x)",
        ),
        ("training.json", "{broken", "not stated"),
    ],
)
def test_the_licence_is_what_the_folder_states(
    tmp_path: Path, file: str, text: str, licence: str
) -> None:
    folder = checkpoint_folder(tmp_path / "above" / "old_13M")
    (folder / file).write_text(text)
    assert found(folder, tmp_path)[1].startswith(licence)


def test_fetch_refuses_unknown_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot fetch demo"):
        resources.fetch(["atlas", "demo"], home=tmp_path, sources=NOWHERE)
    assert list(tmp_path.iterdir()) == []


def test_the_cifti_atlas_is_found_fetched_and_checked(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"grayordinates"
    monkeypatch.setattr(resources.atlas, "CIFTI_ATLAS_SHA256", hashlib.sha256(content).hexdigest())
    sources = replace(server.sources, cifti_atlas=f"{server.url}/A424.dlabel.nii")
    with pytest.raises(UserError, match="fetch cifti-atlas"):
        resources.find_cifti_atlas(home=tmp_path, offline=True)
    server.content["/A424.dlabel.nii"] = b"something else"
    with pytest.raises(UserError, match="sha256"):
        resources.find_cifti_atlas(home=tmp_path, sources=sources)
    server.content["/A424.dlabel.nii"] = content
    (path,) = resources.fetch(["cifti-atlas"], home=tmp_path, sources=sources)
    assert path.read_bytes() == content
    assert resources.find_cifti_atlas(home=tmp_path, offline=True) == path
    own = tmp_path / "own.dlabel.nii"
    assert resources.find_cifti_atlas(own, home=tmp_path, offline=True) == own
