"""The demo: a source with faults, the story that is told, and the check of its end."""
