"""Check that the protocol holds in every state, and that each wrong variant does not.

    python -m tools.protocol_model [--long] [NAME …]

`--long`: the protocol in wider bounds (minutes; 2 GB of memory). A name shows the counterexample of one wrong variant.
"""

from __future__ import annotations

import argparse
import gc
import time
from functools import partial
from typing import TYPE_CHECKING

from . import acquiring, directories, markers
from .acquiring import Acquiring
from .asking import Asking
from .holding import Holding
from .search import Result, search
from .writers import CARELESS

if TYPE_CHECKING:
    from collections.abc import Iterable

Case = Asking | Holding | Acquiring

DELETE, WANT = frozenset({"careful delete"}), frozenset({"careful want"})
MV, TOUCH, RM = frozenset({"mv"}), frozenset({"touch"}), frozenset({"rm"})
REGISTER, MV_KNOWN = frozenset({"careful register"}), frozenset({"mv known"})
ANY = WANT | DELETE | CARELESS

FEW = partial(Asking, crashes=0, ticks=0)
DAMAGED = partial(FEW, chunks=("a",), damaged=True)
HELD = partial(Holding, asks=1, crashes=0, forks=False)
ACQUIRED = partial(Acquiring, touches=0, crashes=0)
INSPECTED = partial(HELD, asks=0, readers=1, damages=1, verifies=1)

RIGHT: dict[str, Case] = {
    "asking": Asking(),
    "asking, each writer in every way": Asking(deeds=(ANY, ANY), crashes=0),
    "asking, a careful delete and two renames": Asking(deeds=(DELETE, MV), intents=(1, 2)),
    "asking, three renames": Asking(deeds=(MV, MV), intents=(2, 1)),
    "asking, damaged": DAMAGED(deeds=(DELETE | RM, MV | TOUCH), crashes=1),
    "registering": Asking(deeds=(REGISTER | WANT | DELETE, MV_KNOWN | MV | TOUCH)),
    "registering, three intents": FEW(
        deeds=(REGISTER | WANT | DELETE | MV_KNOWN, REGISTER | MV_KNOWN | MV | TOUCH), intents=(1, 2), ticks=1
    ),
    "registering, damaged": DAMAGED(deeds=(MV_KNOWN | REGISTER, MV | TOUCH | MV_KNOWN), crashes=1, ticks=1),
    "acquiring": Acquiring(crashes=0),
    "acquiring, with a crash": Acquiring(touches=0),
    "acquiring, again": Acquiring(asks=(2, 1), touches=0, crashes=0),
    "acquiring, given up until it is asked for": Acquiring(asks=(2, 1), touches=0, recover="acquire"),
    "acquiring, given up until then, with the shell": Acquiring(asks=(1, 1), crashes=0, recover="acquire"),
    "acquiring, given up": Acquiring(asks=(2, 1), touches=0, crashes=0, recover="never"),
    "acquiring, given up, with a crash": Acquiring(touches=0, recover="never"),
    "acquiring, put off": Acquiring(touches=0, crashes=0, postpones=1),
    "acquiring, evicted": Acquiring(touches=0, failures=0, crashes=0, evicts=1, asks=(2, 1)),
    "acquiring, evicted, with a crash": Acquiring(touches=0, failures=0, evicts=1),
    "acquiring, markers removed by hand": Acquiring(touches=0, failures=0, crashes=0, removals=1),
    "holding": Holding(asks=1),
    "holding, without crashes": Holding(crashes=0),
    "holding, damaged": INSPECTED(asks=1),
    "holding, damaged, two requests": INSPECTED(crashes=1, verifies=2),
}

LONG: dict[str, Case] = {
    "asking, three careless intents after each other": Asking(intents=(1, 3)),
    "asking, two careful intents": Asking(intents=(2, 1), crashes=2, ticks=2),
    "asking, each writer in every way, three intents": Asking(deeds=(ANY, ANY), intents=(2, 1)),
    "asking, both with care": Asking(deeds=(WANT | DELETE, WANT | DELETE), intents=(2, 2), ticks=2),
    "asking, damaged, each writer in every way": DAMAGED(deeds=(ANY | RM, ANY | RM), crashes=1, ticks=1),
    "asking, damaged, three intents": DAMAGED(deeds=(TOUCH | RM, MV | RM | TOUCH), intents=(1, 2), crashes=1),
    "asking, damaged, crash after crash": DAMAGED(deeds=(ANY | RM, RM), intents=(2, 1), crashes=3, ticks=1),
    "registering, both with care": FEW(deeds=(REGISTER | WANT | DELETE,) * 2, intents=(2, 2), ticks=1),
    "registering, crash after crash": Asking(
        deeds=(REGISTER | DELETE | MV_KNOWN, MV_KNOWN | MV | TOUCH), intents=(1, 2), crashes=2
    ),
    "registering, four intents": FEW(deeds=(DELETE | MV_KNOWN, TOUCH | MV), intents=(2, 2), ticks=1),
    "acquiring, all of it": Acquiring(asks=(2, 1), failures=2, removals=1),
    "acquiring, put off, with crashes": Acquiring(touches=0, postpones=2),
    "acquiring, evicted twice": Acquiring(failures=0, evicts=2, asks=(2, 1)),
    "acquiring, evicted after a failure": Acquiring(touches=0, evicts=1),
    "acquiring, evicted, given up": Acquiring(touches=0, crashes=0, evicts=1, asks=(2, 1), recover="never"),
    "holding, three changes of mind": Holding(asks=3),
    "holding, damaged, two readers": INSPECTED(asks=1, readers=2, crashes=1),
    "holding, damaged twice": INSPECTED(asks=1, damages=2, verifies=2, crashes=1, forks=True),
}

A, H, Q = markers.Wrong, directories.Wrong, acquiring.Wrong
_WRONG: list[Case] = [
    FEW(A.UNLINK_AT_ONCE, (MV, MV)),
    FEW(A.NO_SECOND_LOOK, (MV, MV)),
    FEW(A.NO_LOOK_AT_WINNER, (DELETE, MV | TOUCH), intents=(1, 2)),
    FEW(A.BACK_OVER, (MV, MV), intents=(2, 1)),
    FEW(A.BACK_REGARDLESS, (DELETE, MV), intents=(1, 2), crashes=1),
    FEW(A.FINISH_UNLOCKED, (DELETE, MV), intents=(1, 2), crashes=1),
    FEW(A.NO_FINISH, (WANT, TOUCH), crashes=1, ticks=1),
    FEW(A.FORGET_REGARDLESS, (MV, TOUCH)),
    FEW(A.WANT_BEFORE_PUBLISH, (WANT, TOUCH), crashes=1),
    FEW(A.OPPOSITE_FIRST, (DELETE, MV)),
    FEW(A.NO_LOCK, (DELETE, WANT), chunks=("a",)),  # in the end "a" is there: right after neither order
    FEW(A.TIE_TO_DELETE, (MV, TOUCH)),
    FEW(A.TIE_TO_WANT, (MV, TOUCH)),
    FEW(A.TEXT_UNSEEN, (MV, MV), intents=(2, 1)),
    FEW(A.TEXT_NOT_NAMED, (MV, MV), intents=(2, 1), crashes=1),
    FEW(A.DELETE_SEEN_FIRST, (MV, TOUCH)),
    DAMAGED(A.CLEARED_FIRST, (RM, RM)),
    DAMAGED(A.WANT_GONE_FIRST, (RM, RM), crashes=1),
    DAMAGED(A.BACK_AGAIN, (RM, RM)),
    DAMAGED(A.BACK_OVER_WANT, (RM, MV)),
    DAMAGED(A.NOT_SETTLED, (RM, TOUCH)),
    DAMAGED(A.SETTLED_SOON, (RM, TOUCH)),
    DAMAGED(A.SETTLED_AT_ONCE, (TOUCH, MV)),
    DAMAGED(A.READY_BEFORE_WANT, (RM, MV), crashes=1),
    FEW(A.KNOWN_KEPT, (MV_KNOWN, TOUCH), ticks=1),
    FEW(A.KNOWN_AT_ONCE, (MV_KNOWN, TOUCH | MV_KNOWN), intents=(1, 2), ticks=1),
    FEW(A.KNOWN_BACK, (MV | TOUCH, MV | MV_KNOWN), intents=(1, 2), ticks=1),
    FEW(A.WANTED_WHEN_WRITTEN, (MV, MV_KNOWN), ticks=1),
    FEW(A.NEVER_WANTED_AGAIN, (MV, MV_KNOWN), ticks=1),
    DAMAGED(A.BACK_THOUGH_KNOWN, (MV_KNOWN, MV_KNOWN), ticks=1),
    HELD(H.READY_BEFORE_LOCK),
    HELD(H.READY_BY_PATH),
    HELD(H.NO_DELETE_AFTER_LOCK),
    HELD(H.NO_STEP_0, eager=True),
    HELD(H.NO_READY_AT_STEP_0, eager=True),
    HELD(H.LOCK_UN, forks=True),
    HELD(H.NO_CLAIM),
    HELD(H.PUBLISHED_EARLY),
    INSPECTED(H.QUARANTINED_AWAY),
    INSPECTED(H.QUARANTINED_UNSEEN, asks=1, readers=0),
    INSPECTED(H.ANSWERED_FIRST, crashes=1),
    INSPECTED(H.ANSWERED_ANY, verifies=2),
    ACQUIRED(Q.ANY_OUTCOME, asks=(2, 1)),
    ACQUIRED(Q.LATE_TIME),
    ACQUIRED(Q.NOT_ASKED_ANEW),
    ACQUIRED(Q.UNTOLD, asks=(2, 0), recover="never"),
    ACQUIRED(Q.GIVEN_UP_FOR_GOOD, asks=(2, 0), recover="acquire"),
    ACQUIRED(Q.LOST_INODE, removals=1),
    ACQUIRED(Q.PUT_OFF_TOLD, failures=0, postpones=1),
    ACQUIRED(Q.LEFT_HELD, failures=0),
    ACQUIRED(Q.EVICTED_UNASKED, failures=0, evicts=1),
    ACQUIRED(Q.EVICTED_HELD, failures=0, evicts=1),
]
WRONG = {case.wrong.name: case for case in _WRONG}


def result(case: Case) -> Result:
    """Search one case."""
    # no garbage has a cycle here, and the collector would walk millions of states again and again
    gc.disable()
    try:
        match case:  # each has states of its own kind
            case Asking():
                return search(case)
            case Holding():
                return search(case)
            case Acquiring():
                return search(case)
    finally:
        gc.enable()


def main(arguments: list[str] | None = None) -> int:
    """Search; return 1 where the protocol does not hold, or a wrong variant does."""
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m tools.protocol_model", description=__doc__, formatter_class=how)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"wrong variants to show: {', '.join(WRONG)}")
    parser.add_argument("--long", action="store_true", help="search wider bounds")
    args = parser.parse_args(arguments)
    unknown = set(args.names) - set(WRONG)
    if unknown:
        parser.error(f"there is no variant {', '.join(sorted(unknown))}; --help lists them")
    if args.names:
        return _show({name: WRONG[name] for name in args.names})
    bad = _must_hold((RIGHT | LONG if args.long else RIGHT).items())
    return bad + _must_fail(WRONG.items())


def _show(cases: dict[str, Case]) -> int:
    for name, case in cases.items():
        print(f"{name}: {case.wrong.value}", result(case).counterexample, "", sep="\n")
    return 0


def _must_hold(cases: Iterable[tuple[str, Case]]) -> int:
    bad = 0
    for name, case in cases:
        began = time.monotonic()
        found = result(case)
        said = "holds" if found.counterexample is None else f"DOES NOT HOLD: {found.counterexample}"
        print(f"{name:<52} {found.states:>9,} states {time.monotonic() - began:>6.1f} s  {said}", flush=True)
        bad |= found.counterexample is not None
    return bad


def _must_fail(cases: Iterable[tuple[str, Case]]) -> int:
    bad = 0
    for name, case in cases:
        found = result(case).counterexample
        said = "NOTHING FOUND" if found is None else f"{found.wrong}, in {len(found.trace)} steps"
        print(f"{name:<22} {case.wrong.value}: {said}", flush=True)
        bad |= found is None
    return bad
