"""Experiments with a trained model: forecasts and perturbations."""
