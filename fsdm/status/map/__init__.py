"""The map of a data directory: in a terminal (`text`), as SVG (`drawing`), as HTML (`page`).

All show a `CoverageMap`; no data directory is read here, and nothing is written. Invariant: what comes from the disk is
shown as text: no control character, no markup.
"""
