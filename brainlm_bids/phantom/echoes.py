"""How fast the signal of an echo-planar image decays, and what that means for several echoes.

The signal at echo time TE is S(TE) = S(0.03 s) exp(-(TE - 0.03 s) R2*). A change of blood
oxygenation is a change of R2*: its share of the signal is proportional to TE. What pulsates changes
the same share of all echoes.
"""

from __future__ import annotations

import numpy as np

from brainlm_bids.phantom.head import CSF, GREY, WHITE, signal_left

ECHO_TIME = 0.03  # s, at which the contrast, the noise and the signals of a single echo are given
MAX_ECHO_TIME = 0.2  # s
T2_STAR = {GREY: 0.050, WHITE: 0.045, CSF: 0.180}  # s at 3 T; what is no tissue of the brain: 0.030
OTHER_T2_STAR = 0.030
VARIATION = 0.15  # of the rate within a tissue, smooth over space


def decay_rates(points: np.ndarray, tissues: np.ndarray, dropout: bool) -> np.ndarray:
    """Rate R2* (N,) in 1/s at points (3, N) in MNI mm, of fractions (3, N) of tissue.

    Signal is lost near air because it decays faster there.
    """
    rate = (1 - tissues.sum(0)) / OTHER_T2_STAR
    for tissue, seconds in T2_STAR.items():
        rate += tissues[tissue] / seconds
    x, y, z = points
    rate *= 1 + VARIATION * np.sin(x / 19) * np.sin(y / 23 + 1) * np.cos(z / 17)
    return np.asarray(rate - np.log(signal_left(points)) / ECHO_TIME if dropout else rate)


def nearest_echo(echoes: tuple[float, ...]) -> int:
    """Which of several echo times in s is the nearest to that of a single echo."""
    return int(np.argmin(np.abs(np.array(echoes) - ECHO_TIME)))
