"""The modules that tools share: versions of chunks, a source, figures of processes."""
