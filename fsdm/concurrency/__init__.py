"""Worker threads, cancellation, rate limits and polling; it knows nothing of chunks."""
