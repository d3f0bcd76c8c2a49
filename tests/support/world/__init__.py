"""A whole data directory in one thread: its reconciler, its readers, and those who ask.

`World` does what the processes around a data directory do, one deed at a time, and keeps a model: which outcomes the
intents so far allow for each chunk. Nothing runs by itself. The reconciler's workers only queue what is dispatched, and
the watch and the audit are not started, so it sees nothing but its own scans. A `Cut` runs deeds at a named point in
the middle of another one (before a step of the reconciler's file system, before a look of a reader, before a system
call of a client), which is how races and crashes happen here, each of them the same every time.

A new case in a test is `World(tmp_path)`, then `do(Deed("want", 0, how="cp"))` and so on, each with `check()` after it,
and `finish()` at the end. In a state machine (see `machines`) it is a deed in one of the lists that rules draw from.
"""

from tests.support.world.deeds import HERE, Cut, Deed
from tests.support.world.world import World

__all__ = ["HERE", "Cut", "Deed", "World"]
