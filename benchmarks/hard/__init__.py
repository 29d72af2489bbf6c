"""Inputs that are hard: written, run, and judged by what a user is told of them."""
