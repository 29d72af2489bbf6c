"""The example on the page about given series runs, and its file is what the program reads."""

import re
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from brainlm_bids import A424Masker, resources
from brainlm_bids.bids.timeseries import read_timeseries, stem_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "series.md"
if not PAGE.is_file():
    pytest.skip("the documentation is not here (the image with the tests)", allow_module_level=True)


def test_series_are_made_of_the_volumes_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAINLM_BIDS_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    affine = np.array([[4.0, 0, 0, -88], [0, 4, 0, -124], [0, 0, 4, -70], [0, 0, 0, 1]])
    data = np.random.default_rng(0).normal(100, 1, (45, 55, 45, 6)).astype("float32")
    image = nb.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((4.0, 4.0, 4.0, 1.5))
    image.to_filename("sub-01_task-rest_space-MNI152NLin6Asym_res-2_desc-denoised_bold.nii.gz")
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    # without the network, and with the atlas that the package brings
    block = block.replace("A424Masker()", 'A424Masker("A424approx", offline=True)')
    exec(compile(block, "series.md", "exec"), {})
    (file,) = tmp_path.glob("*_timeseries.tsv")
    found = read_timeseries(file, resources.parcels().names)
    expected = A424Masker("A424approx").fit_transform(image)
    np.testing.assert_allclose(found.values, expected, rtol=1e-5)
    assert found.tr == 1.5 and stem_of(file) == "sub-01_task-rest"
