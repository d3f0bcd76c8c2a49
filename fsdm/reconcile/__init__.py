"""Scan, plan, apply: the loop that makes a data directory what its markers ask for."""
