"""The command line: arguments, configuration, one command a verb; it decides nothing."""
