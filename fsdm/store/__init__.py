"""The data directory: file steps, locks, markers, refs, the catalog and the scan; decisions are left to `reconcile`."""
