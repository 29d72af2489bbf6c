"""Parcels of A424, the only atlas of BrainLM's released checkpoints."""

N_PARCELS = 424
