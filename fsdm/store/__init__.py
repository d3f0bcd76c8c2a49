"""The data directory: file steps, locks, markers, refs, catalog, scan; it decides nothing."""
