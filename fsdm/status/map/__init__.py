"""The map of a data directory: in a terminal (`text`), as SVG (`drawing`), as HTML (`page`).

Pure. Invariant: what comes from the disk is shown as text: no control character, no markup.
"""
