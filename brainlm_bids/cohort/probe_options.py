"""How the probes that are trained by gradient descent are trained (no torch here)."""

from dataclasses import dataclass

VALIDATION_FOLDS = 5  # a fifth of the training subjects stops the training


@dataclass(frozen=True)
class ProbeOptions:
    """Grid, early stopping and draws of a probe.

    Attributes
    ----------
    learning_rates, weight_decays
        A probe is trained for each pair; that with the smallest loss on validation subjects, at
        its best epoch, predicts.
    epochs, patience
        Most epochs, and how many without a smaller validation loss end the training of a pair.
    batch
        Units in a step.
    rows
        Most tokens (or volumes) of a window that a step uses, drawn at random anew each time.
        Held-out units are predicted from all.
    units_per_epoch, validation_units
        At most so many units are seen in an epoch, and validate; this bounds the time of a large
        cohort.
    """

    learning_rates: tuple[float, ...] = (3e-3, 1e-2)
    weight_decays: tuple[float, ...] = (0.01, 0.3)
    epochs: int = 40
    patience: int = 8
    batch: int = 8
    rows: int = 1024
    units_per_epoch: int = 512
    validation_units: int = 256

    @property
    def grid(self) -> tuple[tuple[float, float], ...]:
        """Pairs of learning rate and weight decay."""
        return tuple((rate, decay) for rate in self.learning_rates for decay in self.weight_decays)
