"""What the files alone tell: how chunks stand, why, what is covered and what is coming; it changes nothing."""
