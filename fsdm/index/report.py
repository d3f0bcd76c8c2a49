"""The report of a process that carries out a job: on the descriptor that was its stdout.

Invariant: what else is printed in the process goes to stderr, so that nothing but the report is in the report.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from fsdm.model.errors import FsdmError

if TYPE_CHECKING:
    from collections.abc import Callable


def reported(work: Callable[[], dict[str, Any]]) -> int:
    """Do `work`, and report what it returns, or what it raises; return the exit code of the process."""
    report = os.dup(1)
    os.dup2(2, 1)
    try:
        said = work()
    except FsdmError as e:
        said = {"error": str(e), "hint": e.hint}
    except MemoryError:
        said = {"error": "the indexer needs more memory than it may have", "hint": "raise max-memory"}
    except Exception as e:
        said = {"error": f"the indexer failed: {e!r:.500}", "hint": "see what it has written to stderr"}
    os.write(report, json.dumps(said).encode())
    return 1 if "error" in said else 0
