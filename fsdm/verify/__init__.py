"""Bytes compared with READY: at once, in bulk, or in the background; what follows is decided elsewhere."""
