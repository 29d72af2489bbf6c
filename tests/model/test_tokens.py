"""What readouts are fitted to is what the network makes of a recording, without padding."""

import numpy as np
import pytest

from brainlm_bids.model.checkpoint import load_model
from brainlm_bids.model.embedding import embed
from brainlm_bids.model.tokens import token_table

RNG = np.random.default_rng(0)
COORDS = RNG.uniform(-60, 60, (424, 3))
SHARED = {"tr": 0.735, "seed": 0}


@pytest.mark.parametrize("n_volumes", [130, 260])
def test_pooled_tokens_are_the_embeddings(n_volumes: int) -> None:
    model = load_model("random:tiny", seed=0)
    series = RNG.standard_normal((n_volumes, 424)).astype(np.float32)
    table = token_table(model, series, COORDS, **SHARED)
    for pooling, vector in table.pooled.items():
        expected = embed(model, series, COORDS, pooling=pooling, **SHARED).recording
        # tokens are stored as float16
        np.testing.assert_allclose(vector, expected, atol=2e-3 if pooling == "mean" else 1e-6)


def test_tokens_of_padding_are_left_out() -> None:
    model = load_model("random:tiny", seed=0)
    short = RNG.standard_normal((70, 424)).astype(np.float32)
    table = token_table(model, short, COORDS, **SHARED)
    assert table.tokens.dtype == np.float16 and np.isfinite(table.tokens).all()
    assert sorted(model.network.real_tokens(70)) == table.places.tolist()
    assert len(table.places) < model.config.n_tokens
