"""Worker threads, cancellation, rate limits and polling; chunks are left to others."""
