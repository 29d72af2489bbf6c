"""The model step: its record holds what the single steps give, and networks with both controls."""

import numpy as np
import pytest

from brainlm_bids import resources
from brainlm_bids.errors import UserError
from brainlm_bids.model.checkpoint import load_model, untrained_twin
from brainlm_bids.model.networks import correlation_profile, parcel_networks
from brainlm_bids.model.reconstruction import reconstruct
from brainlm_bids.model.steps import ModelOptions, parcel_features, run_model

MODEL = load_model("random:tiny", seed=3)
TWIN = untrained_twin(MODEL, 4)
XYZ, REFERENCE = resources.parcels().xyz, resources.parcels().network_index
SERIES = np.random.default_rng(0).standard_normal((230, 424)).astype(np.float32)
OPTIONS = ModelOptions(seed=7, mask_ratios=(0.75, 0.5), input_gain=2.0, stride=30)


def test_the_record_holds_what_the_single_steps_give() -> None:
    results = run_model(MODEL, TWIN, SERIES, XYZ, REFERENCE, tr=0.735, options=OPTIONS)
    assert results.embeddings.onset == pytest.approx([0, 30 * 0.735])
    for ratio, result in zip(OPTIONS.mask_ratios, results.reconstructions, strict=True):
        alone = reconstruct(MODEL, SERIES, XYZ, mask_ratio=ratio, seed=7, input_gain=2.0)
        assert np.array_equal(result.series, alone.series)
    assert list(results.networks) == ["model", "attention", "series", "untrained", "coordinates"]
    untrained = parcel_features(TWIN, SERIES, XYZ, tr=0.735, options=OPTIONS)
    controls = {"series": correlation_profile(SERIES), "untrained": untrained}
    for name, features in controls.items():
        alone_labels = parcel_networks(features, REFERENCE, XYZ, 7).labels
        assert np.array_equal(results.networks[name].labels, alone_labels)
    model = parcel_features(MODEL, SERIES, XYZ, tr=0.735, options=OPTIONS)
    assert not np.allclose(model, untrained)


def test_an_unusable_series_is_refused() -> None:
    with pytest.raises(UserError, match="zero throughout"):
        run_model(MODEL, TWIN, SERIES * 0, XYZ, REFERENCE, tr=0.735, options=OPTIONS)
