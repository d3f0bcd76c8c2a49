"""A whole data directory in one thread: its reconciler, its readers, and those who ask.

`World` does what the processes around a data directory do, one deed at a time, and keeps a model: which outcomes the
intents so far allow for each chunk. Nothing runs by itself. The reconciler's workers only queue what is dispatched, and
the watch and the audit are not started, so it sees nothing but its own scans. A `Cut` runs deeds at a named point in
the middle of another one (before a step of the reconciler's file system, before a look of a reader, before a system
call of a client), which is how races and crashes happen here, each of them the same every time.

A new case is a story in LIVES of `tests/system/test_lives.py`: deeds one after the other, and cuts in their midst. WAYS
(`deeds`) has all deeds, ALL (`points`) all points that a cut may name. The world sees after each step what must hold
then, and at the end whether all came to what was asked for: a story asserts nothing itself. In a state machine (see
`machines`) a new deed goes into one of the lists that rules draw from.

| module | has |
|---|---|
| `deeds` | deeds and cuts, and how each deed may be done |
| `others`, `readers`, `reconciling` | the deeds themselves: a method for each |
| `expected` | the model: which outcomes the intents so far allow |
| `points`, `hooks` | the instants that a cut may name, and what reaches them |
| `disk`, `clocks` | what stands on the disk; the time that passes |
| `world` | all of it together: `live`, `do`, `check`, `finish` |
"""

from tests.support.world.deeds import HERE, Cut, Deed
from tests.support.world.world import World

__all__ = ["HERE", "Cut", "Deed", "World"]
