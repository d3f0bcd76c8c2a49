"""Lists of all that is to be here: read, compared with the data directory, followed."""
