"""Known faults, put into a client on purpose: the suite must find each of them.

A suite that passes whatever it is given shows nothing. So each client here is tools/clients/fsdm.sh with one promise of
the protocol broken, and the test that is about that promise must fail.
"""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fsdm.model.layout import Layout
from tests.conformance import test_asking as asking
from tests.conformance import test_finding as finding
from tests.conformance import test_holding as holding
from tests.conformance.clients import HERE, Client

SOUND = (HERE / "fsdm.sh").read_text()


@dataclass(frozen=True, slots=True)
class Fault:
    """In the script, `sound` is replaced by `faulty`; `test`, called with `given`, must find it."""

    test: Callable[..., None]
    sound: str
    faulty: str
    given: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.test.__name__


LOCK, READY = "flock -s -n 9", "stands /proc/self/fd/9/READY"
LAST_LOOK = '! stands "$data/delete/${1##*-}"; then'
FIRST_LOOK = '! stands "$data/delete/${1##*-}" || return 1'
FIRST_READY = 'stands "$data/chunks/$1/READY" || return 1'
NO_SYMLINK = '[ "$(readlink /proc/self/fd/9)" = "$data/chunks/$1" ] &&'
EXEC = '            exec "$@"'
WITHOUT_LOCK = '            "$@" 9<&-; exit'
ORDER, PLACES = "sort -t - -k 1,1r -k 2", 'places "$2" | '
COMPARED = '"x" $2 <= block && block < "x" $3'
AS_FLOATS = "$2 + 0 <= substr(block, 2) + 0 && substr(block, 2) + 0 < $3 + 0"
MOVE = 'mv -fT -- "$temporary" "$data/$1/$2"'
COPY = 'cp -fT -- "$temporary" "$data/$1/$2" && rm -f "$temporary"'
REMOVE = '    [ -d "$data/$opposite/$2" ] || rm -f -- "$data/$opposite/$2"\n'
WRITTEN = '(set -C; cat >"$temporary")'
INTENTS = "flock -w 0.005 9 || :"

CHANGED = holding.test_change_before_the_lock_is_seen_after_it
UNLOCKED = holding.test_chunk_that_is_to_leave_is_not_even_locked
HELD = holding.test_chunk_is_held_while_cmd_runs_and_free_when_it_has_ended
SHARED = holding.test_several_hold_the_same_chunk_and_it_is_free_when_the_last_has_ended
NOT_WAITED_FOR = holding.test_lock_is_shared_and_never_waited_for_unlocked_or_converted
INHERITED = holding.test_child_that_outlives_cmd_holds_on
READ_ON = holding.test_sigkill_of_the_client_takes_the_chunk_from_nobody_who_reads_on
HIDDEN = finding.test_next_in_line_is_found_where_a_chunk_is_not_available
HALF_OPEN = finding.test_chunk_is_found_by_every_block_of_its_half_open_range
STARTS = finding.test_of_overlapping_chunks_the_greatest_start_is_responsible
ENDS = finding.test_of_equal_starts_the_smallest_end_is_responsible
IDS = finding.test_of_equal_ranges_the_smallest_id_is_responsible
EXACT = finding.test_block_numbers_are_exact_up_to_the_end_of_u64
UNSEARCHED = finding.test_who_may_not_look_into_delete_is_told_so
WANTED = asking.test_want_appears_whole_under_the_lock_before_the_delete_goes
NOT_KEPT = asking.test_holder_of_the_lock_of_intents_keeps_no_client_from_asking
OPPOSITE = asking.test_each_intent_removes_its_opposite
READABLE = asking.test_marker_can_be_read_by_a_reconciler_that_is_another_user
NAMED = asking.test_want_stands_under_the_id_that_its_document_names

FAULTS = [
    # READY is looked at before the lock, by path, never, not after the lock, or not before it
    Fault(CHANGED, f"{LOCK} && {READY}", f"{READY} && {LOCK}", {"happens": holding.leaves}),
    Fault(CHANGED, READY, 'stands "$data/chunks/$1/READY"', {"happens": holding.leaves_for_another}),
    Fault(HIDDEN, "stands() {", 'stands() { [ "${1##*/}" = READY ] ||', {"hide": finding.no_ready}),
    Fault(CHANGED, READY, "true", {"happens": holding.is_to_be_replaced}),
    Fault(UNLOCKED, FIRST_READY, "true", {"happened": holding.is_to_be_replaced}),
    # delete/ is not searched, or not looked into after the lock, or before it; a symlink to nowhere is no delete
    Fault(UNSEARCHED, 'stands "$data/delete/." ||', "true ||"),
    Fault(CHANGED, LAST_LOOK, "true; then", {"happens": holding.is_deleted}),
    Fault(UNLOCKED, FIRST_LOOK, "true", {"happened": holding.is_deleted}),
    Fault(HIDDEN, ' || [ -L "$1" ]; }', "; }", {"hide": finding.delete_symlink_to_nowhere}),
    Fault(HIDDEN, NO_SYMLINK, "true &&", {"hide": finding.symlink_in_place_of_a_chunk}),
    # no lock, an exclusive one, one that is waited for, LOCK_UN after a fork
    Fault(HELD, LOCK, "true"),
    Fault(SHARED, LOCK, "flock -n 9"),
    Fault(NOT_WAITED_FOR, LOCK, "flock -s 9"),
    Fault(INHERITED, EXEC, '            "$@" && flock -u 9; exit'),
    # CMD does not inherit the lock, or it goes with the client
    Fault(INHERITED, EXEC, WITHOUT_LOCK),
    Fault(READ_ON, EXEC, WITHOUT_LOCK),
    # an exclusive end taken for inclusive, an inclusive start for exclusive; numbers in floating point
    Fault(HALF_OPEN, 'block < "x" $3', 'block <= "x" $3'),
    Fault(HALF_OPEN, '"x" $2 <= block', '"x" $2 < block'),
    Fault(EXACT, COMPARED, AS_FLOATS),
    # the smallest start first, the greatest end, the greatest id; only the responsible one is asked
    Fault(STARTS, ORDER, "sort"),
    Fault(ENDS, ORDER, "sort -t - -k 1,1r -k 2,2r -k 3"),
    Fault(IDS, ORDER, "sort -t - -k 1,1r -k 2,2 -k 3r"),
    Fault(HIDDEN, PLACES, f"{PLACES}LC_ALL=C {ORDER} | head -n 1 | ", {"hide": finding.delete_file}),
    # a marker written in place; no lock of intents, or one that is waited for; the opposite goes first, or stays
    Fault(WANTED, MOVE, COPY, {"before": None}),
    Fault(WANTED, INTENTS, ":", {"before": None}),
    Fault(NOT_KEPT, INTENTS, "flock -w 100 9 || fail 6 locked"),
    Fault(WANTED, f"    {MOVE}", f"{REMOVE}    {MOVE}", {"before": None}),
    Fault(OPPOSITE, REMOVE, ""),
    # a marker that others cannot read; any id in the document
    Fault(READABLE, WRITTEN, WRITTEN.replace("set -C", "umask 077"), {"kind": "want"}),
    Fault(NAMED, "depth == 1 && before == key", "before == key"),
]


@pytest.mark.parametrize("one", FAULTS, ids=str)
def test_suite_finds_this_fault(one: Fault, layout: Layout, data_dir: Path, tmp_path: Path) -> None:
    if shutil.which("flock") is None:
        pytest.skip("flock is not on this machine")
    assert SOUND.count(one.sound) == 1, "the fault cannot be put in any more"
    script = tmp_path / "faulty.sh"
    script.write_text(SOUND.replace(one.sound, one.faulty))
    client = Client(["sh", str(script)], data_dir, patience_s=5.0)
    places = {"layout": layout, "data_dir": data_dir, "tmp_path": tmp_path}
    wanted = one.test.__code__.co_varnames[: one.test.__code__.co_argcount]
    given = {name: place for name, place in places.items() if name in wanted}
    with pytest.raises((AssertionError, subprocess.TimeoutExpired)):
        one.test(client=client, **given, **one.given)
