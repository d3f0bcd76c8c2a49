"""What a run that is to end thinks of one id: whether it has been tried as often as makes sense, and what is wrong.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fsdm.reconcile.plan import BACKOFF_LAST_S

if TYPE_CHECKING:
    from fsdm.reconcile.plan import Memo

TRIES: Final = 3  # of a fetch, and …
HELD_TRIES: Final = 8  # … of a held directory (about half a second)


def is_stuck(memo: Memo) -> bool:
    """Whether there is nothing more to be tried in one go."""
    failure = memo.failure
    if failure is None:
        return memo.held >= HELD_TRIES
    permanent = failure.next_attempt_at is None or failure.next_attempt_at - failure.last_at > BACKOFF_LAST_S / 4
    return memo.reported and (permanent or failure.attempts >= TRIES)


def trouble(memo: Memo, otherwise: str) -> str:
    """Why it has not converged: a sentence, `otherwise` where nothing is known of it."""
    if memo.failure is not None:
        return memo.failure.error
    return "refs hold it" if memo.held else otherwise
