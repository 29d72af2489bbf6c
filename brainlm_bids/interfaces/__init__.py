"""Nipype interfaces, thin shells over the kernels; a file a part of the graph."""
