"""HTTP on one connection: sessions, look-ups, headers and bodies; it knows nothing of chunks."""
