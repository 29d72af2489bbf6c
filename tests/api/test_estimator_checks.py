"""scikit-learn's and nilearn's own checks of estimators; docs/api.md lists the exceptions."""

import functools
import importlib.util
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
import pytest
import sklearn
from sklearn.utils import estimator_checks as checks
from sklearn.utils.validation import check_is_fitted

from brainlm_bids import A424Masker, BrainLM, BrainLMEmbedder

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
VOLUMES = 20
PASSED_OF_NILEARN = 25
NEED_POLARS = ("check_set_output", "check_nilearn_methods_sample_order_invariance")
needs_current_sklearn = pytest.mark.skipif(
    tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 6), reason="tags came with 1.6"
)


def exceptions(estimator: str) -> dict[str, str]:
    """Check -> reason, from the table in the documentation."""
    row = re.compile(rf"^\| `{estimator}` \| `(check_\w+)` \| (.+) \|$", re.MULTILINE)
    return dict(row.findall(PAGE.read_text()))


# --- checks that need no data ----------------------------------------------------------------

API_CHECKS: tuple[Callable[..., None], ...] = tuple(
    getattr(checks, name)
    for name in (
        "check_estimator_cloneable",
        "check_estimator_tags_renamed",
        "check_valid_tag_types",
        "check_estimator_repr",
        "check_no_attributes_set_in_init",
        "check_mixin_order",
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_parameters_default_constructible",
        "check_get_params_invariance",
        "check_set_params",
        "check_transformer_get_feature_names_out",
    )
    if hasattr(checks, name)
)


@needs_current_sklearn
@pytest.mark.parametrize("check", API_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", [A424Masker, BrainLMEmbedder])
def test_conventions_of_scikit_learn(check: Callable[..., None], kind: type) -> None:
    check(kind.__name__, kind())


# --- the embedder, with rows of a table turned into series ------------------------------------


@functools.cache
def _tiny() -> BrainLM:
    return BrainLM.from_pretrained("random:tiny", device="cpu")


class RowEmbedder(BrainLMEmbedder):
    """Takes the 2-D arrays of scikit-learn's checks: a row tells the amplitudes of sines."""

    def fit(self, X: Any, y: Any = None) -> "RowEmbedder":
        from sklearn.utils.validation import validate_data

        if X is not None:
            _series(validate_data(self, X))
        self.model_ = _tiny()
        self.n_features_out_ = self.model_.embedding_dim
        return self

    def transform(self, X: Any) -> Any:
        from sklearn.utils.validation import validate_data

        check_is_fitted(self)
        return super().transform(_series(validate_data(self, X, reset=False)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = True, False
        tags.no_validation = False
        return tags


def _series(rows: Any) -> np.ndarray:
    time, parcel = np.arange(VOLUMES)[:, None], np.arange(424)[None, :]
    waves = [np.sin((k + 1) * time / 7 + parcel * (k + 2)) for k in range(rows.shape[1])]
    return np.tensordot(rows, waves, axes=1) + np.cos(1.3 * time + parcel)


@needs_current_sklearn
def test_embedder_passes_the_checks_of_scikit_learn() -> None:
    embedder = RowEmbedder("random:tiny", tr=0.735, device="cpu")
    results = checks.check_estimator(embedder, on_fail=None, on_skip=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert not failed
    assert sum(r["status"] == "passed" for r in results) > 25


# --- the masker, on an atlas where nilearn's small images lie ----------------------------------


def _nilearn_checks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of nilearn's checks, also where polars and numpydoc are not installed."""
    pytest.importorskip("nilearn", minversion="0.14")
    for library, names in (("polars", []), ("numpydoc", ["numpydoc.docscrape"])):
        if importlib.util.find_spec(library) is None:
            for name in (library, *names):
                absent = types.ModuleType(name)
                absent.NumpyDocString = None  # type: ignore[attr-defined]
                monkeypatch.setitem(sys.modules, name, absent)
    return importlib.import_module("nilearn._utils.estimator_checks")


class MaskerOfNilearn(A424Masker):
    """The masker with the tags by which nilearn chooses checks."""

    def __sklearn_tags__(self) -> Any:
        from nilearn._utils.tags import InputTags

        tags = super().__sklearn_tags__()
        tags.input_tags = InputTags(niimg_like=True, surf_img=False)
        tags.estimator_type, tags.input_tags.masker = "masker", True
        return tags


@pytest.mark.filterwarnings("ignore")
def test_masker_passes_the_checks_of_nilearn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    for marker in ("thread_unsafe", "flaky", "slow", "single_process", "ai_generated"):
        pytestconfig.addinivalue_line("markers", f"{marker}: used by nilearn's own tests")
    skipped = () if importlib.util.find_spec("polars") else NEED_POLARS
    nilearn_checks = _nilearn_checks(monkeypatch)
    labels = np.zeros(7 * 8 * 9, dtype=np.int16)
    labels[:424] = np.arange(1, 425)
    labels = np.random.default_rng(0).permutation(labels).reshape(7, 8, 9)
    atlas = tmp_path / "atlas.nii.gz"
    nb.Nifti1Image(labels, np.eye(4)).to_filename(atlas)
    failed, passed = {}, []
    for masker, check in nilearn_checks.nilearn_check_generator(MaskerOfNilearn(atlas)):
        if check.__name__ in skipped:
            continue
        try:
            check(masker)
            passed.append(check.__name__)
        except (Exception, pytest.fail.Exception) as error:
            failed[check.__name__] = repr(error)
    expected = exceptions("A424Masker")
    assert {name: failed[name] for name in failed if name not in expected} == {}
    # an exception that is no longer one goes from the page
    assert set(expected) == set(failed) and len(passed) >= PASSED_OF_NILEARN
