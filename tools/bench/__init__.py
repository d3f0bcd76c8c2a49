"""Benchmarks: the figures that are promised, and the transfers of others beside fsdm's."""
