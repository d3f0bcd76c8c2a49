"""A whole data directory in one thread: its reconciler, its readers, and those who ask.

`World` does what the processes around a data directory do, one deed at a time, and keeps a model: which outcomes the
intents so far allow for each chunk. Nothing runs by itself. The reconciler's workers only queue what is dispatched, and
the watch and the audit are not started, so it sees nothing but its own scans. A `Cut` runs deeds at a named point in
the middle of another one (before a step of the reconciler's file system, before a look of a reader, before a system
call of a client), which is how races and crashes happen here, each of them the same every time.

    deeds         what is done, and where in the midst of it something else may be done
    versions      what each chunk may be wanted as
    clocks        the time, and the times of files: ctimes and mtimes are the world's as well
    points        the instants that a cut may name, and what is going on at each
    hooks         what is replaced in the package so that it tells the world of each step
    disk          what stands in the data directory
    expected      which outcomes the intents allow
    others        deeds of those who ask: a new kind of deed is a new method here
    readers       deeds of those who hold refs
    reconciling   the deeds of the reconciler, and its source
    world         all of it, and what must hold between two deeds and at the end

A new case in a test is `World(tmp_path)`, then `do(Deed("want", 0, how="cp"))` and so on, each with `check()` after it,
and `finish()` at the end. In a state machine (see `machines`) it is a deed in one of the lists that rules draw from.
"""

from tests.support.world.deeds import HERE, Cut, Deed
from tests.support.world.world import World

__all__ = ["HERE", "Cut", "Deed", "World"]
