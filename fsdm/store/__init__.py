"""The data directory: file steps, locks, markers, refs, the catalog and the scan; it decides nothing."""
