"""Sources by the scheme of a URL."""
