"""Worker threads, cancellation, rate limits and polling; chunks and their files are left to others."""
