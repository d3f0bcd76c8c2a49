"""The crash harness: a kill after each step, and every state that a power failure may leave."""
