"""HTTP(S) by libcurl: requests, answers and connections; it knows nothing of chunks."""
