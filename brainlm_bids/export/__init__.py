"""Series for other programs: the recordings of an output folder in their formats.

`rows` reads a recording, `arrow`, `toolkit` and `folders` write rows, `work` does it for a folder.
"""
