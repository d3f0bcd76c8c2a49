"""A chunk's files, fetched from their sources into `partial/`; it publishes nothing."""
