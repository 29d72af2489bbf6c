"""Distortion of echo-planar images along their phase-encoding axis, and how it is found."""
