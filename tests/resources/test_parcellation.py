"""Parcellations beside A424: names, files, tables, spaces; what cannot be used is refused."""

from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from numpy.typing import NDArray

from brainlm_bids.errors import UserError
from brainlm_bids.resources import find_parcellation
from brainlm_bids.resources.label_images import on_grayordinates
from brainlm_bids.resources.parcellation import default_label

SPACE = "MNI152NLin6Asym"
TABLE = "index\tname\n0\tbackground\n900\tninth\n7\tseven\n"


def _image(path: Path, data: NDArray[np.generic]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nb.Nifti1Image(data, np.diag([2.0, 2.0, 2.0, 1.0])).to_filename(path)
    return path


def _labels(*values: float) -> NDArray[np.float32]:
    data = np.zeros((4, 4, 4), dtype=np.float32)
    for place, value in enumerate(values):
        data[place] = value
    return data


def test_labels_need_be_neither_whole_typed_nor_contiguous(tmp_path: Path) -> None:
    name = f"tpl-{SPACE}_res-02_atlas-Mine_desc-a_dseg.nii.gz"
    path = _image(tmp_path / name, _labels(900.0, 7.0, np.nan))
    # by the principle of inheritance: entities of the table are entities of the image
    (tmp_path / f"tpl-{SPACE}_atlas-Mine_dseg.tsv").write_text(TABLE)
    (tmp_path / f"tpl-{SPACE}_atlas-Mine_desc-b_dseg.tsv").write_text("index\tname\n7\tother\n")
    found = find_parcellation(str(path))
    assert found.label == "Minea" and found.space == SPACE and found.warnings == ()
    assert found.labelled.index.tolist() == [7, 900]
    assert found.labelled.names.tolist() == ["seven", "ninth"]
    assert found.labelled.labels[:, 0, 0].tolist() == [2, 1, 0, 0]


def test_large_labels_stay_apart(tmp_path: Path) -> None:
    """Float32 has one value for both, as nibabel's scaled data would."""
    path = _image(tmp_path / "big.nii", _labels(1, 2).astype(np.int32) + 2**24)
    assert find_parcellation(f"{path}:Big").labelled.index.tolist() == [2**24 + n for n in range(3)]


def test_without_a_table_names_are_those_of_the_labels(tmp_path: Path) -> None:
    path = _image(tmp_path / "my_atlas.nii.gz", _labels(5, 3))
    found = find_parcellation(f"{path}:Mine")
    assert found.labelled.names.tolist() == ["Mine_3", "Mine_5"]
    assert ["tells no space" in one.text for one in found.warnings] == [True]
    changed = path.with_name("my_atlas.tsv")
    changed.write_text("index\tlabel\n3\tthree\n5\tfive\n")
    other = find_parcellation(f"{path}:Mine")
    assert other.labelled.names.tolist() == ["three", "five"] and other.content != found.content
    changed.write_text("index\tname\n3\tn/a\n5\tn/a\n")
    assert find_parcellation(f"{path}:Mine").labelled.names.tolist() == ["Mine_3", "Mine_5"]


@pytest.mark.parametrize(
    ("data", "table", "said"),
    [
        (_labels(0.5), "", "not whole numbers"),
        (_labels(-1, 3), "", "negative"),
        (_labels(), "", "no label"),
        (np.zeros((2, 2, 2, 3), np.float32), "", "4-D"),
        (_labels(1), "index\tcolour\n1\tred\n", "columns index and name"),
        (_labels(1), "index\tname\n1\ta\n1\tb\n", "occurs twice"),
        (_labels(1, 2), "index\tname\n1\ta\n2\ta\n", "two of its parcels are called 'a'"),
        (_labels(1), "index\tname\n1.5\ta\n", "not a whole number"),
        (np.arange(20 * 20 * 20, dtype=np.int16).reshape(20, 20, 20), "", "is it a parcellation"),
    ],
)
def test_what_is_no_parcellation_is_refused(
    tmp_path: Path, data: NDArray[np.generic], table: str, said: str
) -> None:
    path = _image(tmp_path / "atlas.nii.gz", data)
    if table:
        path.with_name("atlas.tsv").write_text(table)
    with pytest.raises(UserError, match=said) as error:
        find_parcellation(f"{path}:Mine")
    assert "atlas." in str(error.value) and "\n" not in str(error.value)


def test_labels_in_file_names(tmp_path: Path) -> None:
    path = _image(tmp_path / "my_atlas.nii.gz", _labels(5))
    assert find_parcellation(str(path)).label == "myatlas"
    for label, said in (("A424x", "BrainLM"), ("a_b", "letters and digits")):
        with pytest.raises(UserError, match=said):
            find_parcellation(f"{path}:{label}")
    (tmp_path / "annexed.nii.gz").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="fetch or copy"):
        find_parcellation(f"{tmp_path}/annexed.nii.gz:Mine")
    with_colon = _image(tmp_path / "a:b.nii.gz", _labels(5))
    assert find_parcellation(str(with_colon)).path == with_colon
    assert default_label(Path("atlas-4S156Parcels_space-X_res-01_dseg.nii.gz")) == "4S156Parcels"


def test_schaefer_is_that_of_templateflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))
    with pytest.raises(UserError, match="not in \\$TEMPLATEFLOW_HOME, and --offline"):
        find_parcellation("Schaefer400x17", home=tmp_path / "home", offline=True)
    with pytest.raises(UserError, match="TemplateFlow has 100, 200"):
        find_parcellation("Schaefer700x7")
    stem = f"tpl-{SPACE}_{{}}atlas-Schaefer2018_desc-400Parcels17Networks_dseg"
    folder = tmp_path / f"tpl-{SPACE}"
    _image(folder / (stem.format("res-02_") + ".nii.gz"), _labels(1, 2))
    table = folder / (stem.format("") + ".tsv")
    table.touch()  # a stub of TemplateFlow's client
    with pytest.raises(UserError, match="--offline"):
        find_parcellation("Schaefer400x17", home=tmp_path / "home", offline=True)
    table.write_text("index\tname\tcolor\n1\tone\t#000000\n2\ttwo\t#000000\n")
    names = "Schaefer400x17", "schaefer2018_400Parcels17Networks", "Schaefer_400_17"
    for name in names:
        found = find_parcellation(name, home=tmp_path / "home", offline=True)
        assert (found.label, found.space, found.warnings) == ("Schaefer400x17", SPACE, ())
        assert found.labelled.names.tolist() == ["one", "two"] and "TemplateFlow" in found.source


def _dlabel(path: Path, vertices: list[int], labels: list[int], n_vertices: int = 10) -> Path:
    surface = nb.cifti2.BrainModelAxis.from_surface(vertices, n_vertices, "CORTEX_LEFT")
    table = {0: ("???", (0, 0, 0, 0)), 3: ("three", (1, 0, 0, 1)), 5: ("five", (0, 1, 0, 1))}
    axis = nb.cifti2.LabelAxis(["labels"], [table])
    image = nb.Cifti2Image(np.array([labels], np.float32), (axis, surface))
    image.to_filename(path)
    return path


def test_grayordinates_get_labels_by_vertex(tmp_path: Path) -> None:
    own = _dlabel(tmp_path / "own.dlabel.nii", [0, 1, 2, 3, 4], [3, 3, 5, 0, 5])
    target = _dlabel(tmp_path / "target.dlabel.nii", [4, 2, 9], [0, 0, 0])
    found = find_parcellation(f"{own}:Own")
    assert found.space == "fsLR" and found.labelled.names.tolist() == ["three", "five"]
    assert on_grayordinates(found.path, found.labelled, target).labels.tolist() == [2, 2, 0]
    other = _dlabel(tmp_path / "other.dlabel.nii", [4, 2, 9], [0, 0, 0], n_vertices=20)
    with pytest.raises(UserError, match="surfaces are not those"):
        on_grayordinates(found.path, found.labelled, other)
