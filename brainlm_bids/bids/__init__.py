"""BIDS data sets: inputs, names, outputs and existing derivatives."""
