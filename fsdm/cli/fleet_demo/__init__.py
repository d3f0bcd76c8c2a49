"""The demo of a fleet: a lake, nodes that are processes of this machine, the story, and the check of its end."""
