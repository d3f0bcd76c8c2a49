"""What the tests share: sources, chunks, processes, and bounded waiting."""
