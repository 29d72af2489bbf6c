"""Figures of the reports: arrays in, SVG out."""
