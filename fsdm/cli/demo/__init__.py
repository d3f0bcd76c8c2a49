"""`fsdm demo`: the main job in one command, with nothing else running.

`play` is the script, scene by scene; `cast` the chunks in it; `stage` starts, kills and listens to the processes;
`roles` is what those processes do; `source` the HTTP server; `show` the lines that a person or a program sees; `check`
the end state, from disk alone.
"""

from __future__ import annotations

from fsdm.cli.demo.play import demo

__all__ = ["demo"]
