"""Numbers and health for operators: metrics, probes, systemd; it reads the loop and changes nothing."""
