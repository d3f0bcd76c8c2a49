"""What the tools share: versions of chunks, a source, figures of processes."""
