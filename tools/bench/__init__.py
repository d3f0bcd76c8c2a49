"""The benchmarks: the figures that are promised, beside the peers."""
