"""A fleet of machines: which chunks each of them is to hold, and the files that tell it so."""
