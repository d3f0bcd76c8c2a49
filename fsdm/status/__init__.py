"""Reports on chunks, read from the files alone; it changes nothing."""
