"""A gate that no fork passes while a descriptor is opened and noted, or closed and forgotten.

Invariant: in a forked child every such descriptor of its parent is noted. Reentrant: a finalizer or the handler of
a signal may come in between, in the same thread.
"""

from __future__ import annotations

import os
import threading

gate = threading.RLock()

os.register_at_fork(before=gate.acquire, after_in_parent=gate.release, after_in_child=gate.release)
