"""What operators watch: metrics, health and systemd; it reads the loop and changes nothing."""
