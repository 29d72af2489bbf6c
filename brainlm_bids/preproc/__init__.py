"""Preprocessing of fMRI: motion correction, registration, denoising."""
