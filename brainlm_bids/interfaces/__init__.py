"""Nipype interfaces, thin wrappers around the steps; one file per part of the graph."""
