"""Comparing bytes with READY: at once, in bulk, or in the background."""
