"""Nipype interfaces that write the derivatives: what the stages' arrays become under BIDS names.

`context` is what the app knows of a run (see `bids.context`). Nodes with these interfaces always
run when their graph runs: their files may have been deleted while the work folder was kept.
"""
