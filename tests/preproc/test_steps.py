"""The steps of a run, one after the other, on a run of a simulator of another making."""

import numpy as np

from benchmarks import denoising, simulator


def test_denoised_parcels_keep_the_signal_of_a_simulated_run() -> None:
    run = simulator.simulate(8, n_volumes=120)
    found = denoising.denoise(run)
    n_dummy = found.motion.n_dummy
    assert run.n_non_steady - 1 <= n_dummy <= run.n_non_steady + 3
    assert np.isnan(found.denoised[:n_dummy]).all()
    truth = run.series, run.oracle, denoising.simulated_nuisances(run), run.n_non_steady
    raw, clean = denoising.of_the_oracle(found.denoised, *truth)
    # bounds of the accuracy table: 0.95 and 0.85
    assert raw > 1.05
    assert clean > 0.9
    signal = found.global_signal, n_dummy, run.tr
    others = denoising.peers(found.raw, found.motion.parameters, *signal)
    assert raw > 1.5 * denoising.of_the_oracle(others["nilearn, non-steady kept"], *truth)[0]
    noise, reasons = found.decisions.noise, found.decisions.reason
    assert 0 < noise.sum() < noise.size / 2
    # heart beat in the ventricles and the edge that moves are there, and are what goes
    assert any("csf_fract" in reason for reason in reasons)
    assert any("motion and edge" in reason for reason in reasons)
