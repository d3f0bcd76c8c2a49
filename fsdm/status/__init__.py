"""Reports from the files alone: how chunks stand, why, what is covered, what is coming; it changes nothing."""
