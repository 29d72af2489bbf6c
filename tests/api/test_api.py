"""The public names: what they take, refuse and give."""

import inspect
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from brainlm_bids import BrainLM, BrainLMEmbedder, resources


@pytest.fixture(scope="module")
def demo() -> BrainLM:
    return BrainLM.from_pretrained("demo", device="cpu")


@pytest.fixture
def series() -> np.ndarray:
    rng = np.random.default_rng(3)
    return np.cumsum(rng.normal(size=(260, 424)), axis=0) + 10000


def test_import_brings_in_nothing_heavy() -> None:
    code = (
        "import sys; before = set(sys.modules); import brainlm_bids; dir(brainlm_bids); "
        "new = {m.partition('.')[0] for m in set(sys.modules) - before}; "
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['brainlm_bids']"


def test_a_table_is_matched_by_name_in_any_order(demo: BrainLM, series: np.ndarray) -> None:
    names = list(resources.parcels().names)
    table = pd.DataFrame(series, columns=names)
    shuffled = table[list(np.random.default_rng(0).permutation(names))]
    expected = demo.embed(series, tr=0.735).recording
    np.testing.assert_array_equal(demo.embed(shuffled, tr=0.735).recording, expected)


def test_scaling_and_resampling_happen_inside(demo: BrainLM, series: np.ndarray) -> None:
    first, scaled = (demo.embed(x, tr=2.0) for x in (series, 3 * series + 100))
    np.testing.assert_allclose(first.recording, scaled.recording, atol=1e-5)
    assert first.provenance["resampling"] and first.provenance["source_repetition_time"] == 2.0
    assert first.provenance["repetition_time"] == 0.735
    assert demo.embed(series, tr=0.735).provenance["resampling"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.T, "transpose"),
        (lambda x: x[:, :423], r"\(260, 423\)"),
        (lambda x: x * np.nan, "NaN"),
        (lambda x: x[:10], "10 volumes"),
        (lambda x: np.ones_like(x), "constant"),
        (lambda x: x.astype(complex), "complex"),
        (lambda x: pd.DataFrame(x, columns=[f"p{k}" for k in range(424)]), "no parcel of A424"),
        (lambda x: pd.DataFrame(x).iloc[:, :400], "400 columns"),
    ],
)
def test_what_cannot_be_right_is_refused_in_one_line(
    demo: BrainLM, series: np.ndarray, change: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        demo.embed(change(series), tr=0.735)  # type: ignore[operator]
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("tr", "message"), [(735, "0.735"), (0, "positive"), (None, "not recorded"), (-1, "positive")]
)
def test_a_repetition_time_that_cannot_be(
    demo: BrainLM, series: np.ndarray, tr: float | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        demo.embed(series, tr=tr)


def test_a_parcel_without_data_is_filled_and_listed(demo: BrainLM, series: np.ndarray) -> None:
    series[:, 7] = np.nan
    out = demo.embed(series, tr=0.735)
    assert out.provenance["filled_parcels"] == [resources.parcels().names[7]]
    assert np.isfinite(out.recording).all()


def test_embeddings_as_a_table(demo: BrainLM, series: np.ndarray) -> None:
    out = demo.embed(series, tr=0.735, tokens=True)
    frame = out.to_frame()
    assert list(frame.columns[:3]) == ["onset", "duration", "cls_0000"] and len(frame) == 2
    assert out.tokens is not None and out.tokens.shape[:2] == (2, 424)
    np.testing.assert_allclose(out.windows.mean(axis=0), out.recording, rtol=1e-5, atol=1e-6)
    many = demo.embed([series, series[:230]], tr=[0.735, 0.735])
    assert many.recording.shape == (2, demo.embedding_dim)
    assert many.to_frame()["recording"].tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"recording 1: .*transpose"):
        demo.embed([series, series.T], tr=0.735)


def test_the_other_results(demo: BrainLM, series: np.ndarray) -> None:
    reconstruction = demo.reconstruct(series, tr=0.735)
    assert set(reconstruction.metrics.index) >= {"model", "parcel_mean", "ridge"}
    assert reconstruction.to_frame().shape == (260, 424)
    forecast = demo.forecast(series, tr=0.735, n=20).to_frame()
    assert forecast.shape == (20, 424) and forecast.index[0] == pytest.approx(260 * 0.735)
    networks = demo.networks(series, tr=0.735)
    controls = {"series", "untrained", "coordinates", "spatial_null_mean", "spatial_null_95"}
    assert set(networks.metrics.index) == {"model", *controls}
    assert networks.metrics.notna().all(axis=None)
    assert sorted(set(networks.labels)) == list(range(1, 8))


def test_embedder_in_a_pipeline() -> None:
    rng = np.random.default_rng(0)
    recordings, y = rng.normal(size=(6, 200, 424)), rng.normal(size=6)
    embedder = BrainLMEmbedder("demo", tr=0.735, device="cpu")
    pipeline = make_pipeline(clone(embedder), Ridge()).fit(recordings, y)
    expected = pipeline.predict(recordings)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(pipeline)).predict(recordings), expected
    )
    table = embedder.set_output(transform="pandas").fit_transform(recordings)
    assert list(table.columns) == list(embedder.get_feature_names_out())
    model = BrainLM.from_pretrained("demo", device="cpu")
    np.testing.assert_array_equal(
        table.to_numpy(), np.stack([model.embed(r, tr=0.735).recording for r in recordings])
    )


def test_a_series_that_is_not_scaled_is_doubted() -> None:
    """`already_scaled=True` is believed, but not in silence; cohort statistics are no doubt."""
    rng = np.random.default_rng(3)
    model = BrainLM.from_pretrained("demo")
    scaled = rng.normal(0.0, 0.74, size=(220, 424))
    widths = rng.uniform(0.3, 3.0, size=424)  # of one recording beside those of a cohort
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for series in (scaled, scaled * widths):
            out = model.embed(series, tr=0.735, already_scaled=True)
            assert out.provenance["notes"] == []
    raw = scaled * 60.0
    for series in (raw, raw + 10_000.0, scaled + 30.0, scaled / 50.0):
        with pytest.warns(UserWarning, match="do not look robustly scaled") as caught:
            out = model.embed(series, tr=0.735, already_scaled=True)
        assert caught[0].filename == __file__
        (note,) = out.provenance["notes"]
        assert "interquartile range of" in note
        with pytest.warns(UserWarning, match="an array: already_scaled"):
            model.forecast(series, 0.735, n=2, already_scaled=True)


def test_the_options_of_embed_are_in_its_signature() -> None:
    names = list(inspect.signature(BrainLM.embed).parameters)
    assert names[3:] == [
        *("pooling", "stride", "token_orders", "tokens", "scaling", "already_scaled"),
        *("input_gain", "random_state"),
    ]
    with pytest.raises(TypeError, match="poling"):
        BrainLM.from_pretrained("demo").embed(np.ones((200, 424)), tr=0.735, poling="cls")
