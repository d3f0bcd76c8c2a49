"""Metrics, health and systemd for operators; it reads the loop and changes nothing."""
