"""A fleet in memory, placed by the real `place`: a year of it, and the failure stories of other systems."""
