"""The command line: arguments, configuration and one command a verb; it decides nothing of its own."""
