"""The trained probes as predictors of a split, which `decoding.decode_by` takes."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from brainlm_bids.cohort.attentive import attentive_predictions
from brainlm_bids.cohort.bags import Bags
from brainlm_bids.cohort.decoding import Predictor
from brainlm_bids.cohort.folds import Split
from brainlm_bids.cohort.series_mlp import mlp_predictions
from brainlm_bids.cohort.sources import ATTENTIVE, MLP

_TRAINED: dict[str, Callable[..., NDArray[np.float64]]] = {
    ATTENTIVE: attentive_predictions,
    MLP: mlp_predictions,
}


def predictor_of(kind: str, bags: Bags) -> Predictor:
    """What trains a probe on the training units of a split, and predicts the others.

    Parameters
    ----------
    kind
        "attentive" for bags of tokens, "mlp" for bags of volumes.
    bags
        Of the U units.

    Returns
    -------
    callable
        See `decoding.decode_by`.

    Raises
    ------
    KeyError
        If there is no such probe.
    """
    train = _TRAINED[kind]

    def predict(
        target: NDArray[np.float64],
        people: NDArray[np.str_],
        split: Split,
        n_classes: int,
        seed: int,
    ) -> NDArray[np.float64]:
        return train(bags, target, people, split, n_classes=n_classes, seed=seed)

    return predict
