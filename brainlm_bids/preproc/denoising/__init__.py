"""Denoising: confounds, temporal filters, ICA and ICA-AROMA."""
