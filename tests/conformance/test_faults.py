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
from tests.conformance import test_acquiring as acquiring
from tests.conformance import test_asking as asking
from tests.conformance import test_finding as finding
from tests.conformance import test_holding as holding
from tests.conformance import test_keys as keys
from tests.conformance.clients import HERE, Client
from tests.support.chunks import a_want, put_known

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
LAST_LOOK = '! deleted "$1"; then'
FIRST_LOOK = '! deleted "$1" || return 1'
FIRST_READY = 'stands "$data/chunks/$1/READY" || return 1'
NO_SYMLINK = '[ "$(readlink /proc/self/fd/9)" = "$data/chunks/$1" ] &&'
EXEC = '    exec "$@"'
WITHOUT_LOCK = '    "$@" 9<&-; exit'
ORDER, PLACES = "sort -t - -k 1,1r -k 2", 'places "$2" | '
COMPARED = '"x" $2 <= block && block < "x" $3'
AS_FLOATS = "$2 + 0 <= substr(block, 2) + 0 && substr(block, 2) + 0 < $3 + 0"
MOVE = 'mv -fT -- "$temporary" "$marker"'
COPY = 'cp -fT -- "$temporary" "$marker" && rm -f "$temporary"'
REMOVE = '[ -d "$data/$opposite/$id" ] || rm -f -- "$data/$opposite/$id"'
LINK = 'ln -T -- "$temporary" "$marker" ||'
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
WANTED = asking.test_document_appears_whole_under_the_lock_before_the_others_go
A_WANT = {"verb": "want", "kind": "want", "before": None}
A_REGISTRATION = {"verb": "register", "kind": "known", "before": b"an older one"}
NOT_KEPT = asking.test_holder_of_the_lock_of_intents_keeps_no_client_from_asking
OPPOSITE = asking.test_each_intent_removes_what_it_overrules
EXCLUSIVE = asking.test_exclusive_registration_is_refused_where_one_stands
LINKED = asking.test_registration_that_comes_at_the_last_moment_is_not_overwritten
READABLE = asking.test_marker_can_be_read_by_a_reconciler_that_is_another_user
NAMED = asking.test_document_stands_under_the_id_that_it_names

SHARED_LINK = '        ln -T -- "$temporary" "$marker" 2>/dev/null || :'
LOCKED_LINK = f"        flock -s 8 # nobody else has it: it is never there unlocked\n{SHARED_LINK}"
UNLOCKED_LINK = f"{SHARED_LINK}\n        flock -s 8 #"
TOUCH = 'touch -c -d "@$since" /proc/self/fd/8 2>/dev/null || :'
SINCE = "since=$(date +%s.%N)"
TIMED = "    since=$(date +%s.%N) # before the touch, so that no failure in between is missed\n"
TIMED_LATE = f"    touch -c /proc/self/fd/8\n{TIMED}    return 0\n"
JOINED, JOINED_ONCE = '[ ! "$marker" -ef /proc/self/fd/8 ] || return 0', "[ ! -e /proc/self/fd/8 ] || return 0"
STANDS = 'stands "$data/want/$id" || stands "$data/known/$id" || fail 3'
OUTCOME = acquiring.test_failure_since_one_asks_is_the_outcome_unless_it_is_for_room
REF_FIRST = acquiring.test_ref_is_taken_before_the_marker_is_let_go_of_and_cmd_does_not_have_it
RESPONSIBLE = acquiring.test_among_what_is_here_and_registered_one_is_responsible
HIT = acquiring.test_hit_writes_nothing
NOTED = acquiring.test_use_of_what_may_be_evicted_is_noted
WHOLE = keys.test_run_that_is_not_whole_counts_as_absent
COUNTS = keys.test_hit_counts_while_the_chunk_is_there_with_that_ready_and_key
BY_RUN = keys.test_hit_counts_by_the_run_where_the_chunk_has_no_index_of_its_own
ALL_RUNS = keys.test_chunks_of_a_key_are_found_in_all_runs_each_once_in_order

HEAD_CHECK = '[ "$(bytes "$1" 144 16 | hex)" = "$(head -c 144 -- "$1" | sha256sum | head -c 32)" ]'
SIZE_CHECK = '[ "$(u64 "$1" 24)" = "$(stat -c %s -- "$1")" ]'

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
    Fault(INHERITED, EXEC, '    "$@" && flock -u 9; exit'),
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
    Fault(WANTED, MOVE, COPY, A_WANT),
    Fault(WANTED, INTENTS, ":", A_WANT),
    Fault(WANTED, MOVE, COPY, A_REGISTRATION),
    Fault(NOT_KEPT, INTENTS, "flock -w 100 9 || fail 6 locked"),
    Fault(WANTED, f"    {MOVE}", f'    for opposite in "$@"; do {REMOVE}; done; {MOVE}', A_WANT),
    Fault(OPPOSITE, REMOVE, ":", {"kind": "want"}),
    Fault(OPPOSITE, 'place delete "$2" want known', 'place delete "$2" want', {"kind": "delete"}),
    Fault(OPPOSITE, 'ask known "$2" delete want', 'ask known "$2" delete', {"kind": "known"}),
    # an exclusive registration by a rename after a look, or one that overrules what stands though it is refused
    Fault(LINKED, LINK, '[ ! -e "$marker" ] && mv -T -- "$temporary" "$marker" ||'),
    Fault(EXCLUSIVE, 'fail 1 "$id is registered already"', "exit_code=1"),
    # a marker that others cannot read; any id in the document
    Fault(READABLE, WRITTEN, WRITTEN.replace("set -C", "umask 077"), {"kind": "want"}),
    Fault(NAMED, "depth == 1 && before == key", "before == key", {"verb": "want", "kind": "want"}),
    # acquire/ID is there unlocked, without its text, by a rename over another one
    Fault(acquiring.test_marker_is_never_there_unlocked, LOCKED_LINK, UNLOCKED_LINK),
    Fault(acquiring.test_who_waits_no_more_leaves_a_marker_that_asks_for_nothing, "echo held >", ": >"),
    Fault(acquiring.test_marker_that_comes_first_is_shared, SHARED_LINK, SHARED_LINK.replace("ln -T", "mv -T")),
    # it is not touched; the time is taken after that, or not at all; a marker that has gone is taken for the one
    Fault(acquiring.test_who_joins_shares_the_marker_that_stands_and_touches_it, TOUCH, ":"),
    Fault(acquiring.test_failure_that_comes_as_it_is_asked_for_anew_is_none_too_early, TIMED, TIMED_LATE),
    Fault(acquiring.test_failure_of_just_before_is_none, SINCE, "since=0"),
    Fault(OUTCOME, SINCE, "since=0", {"kind": "transfer", "after_s": -1, "code": 4}),
    Fault(acquiring.test_marker_that_goes_before_it_is_locked_is_put_there_anew, JOINED, JOINED_ONCE),
    Fault(acquiring.test_marker_that_goes_while_one_waits_is_put_there_anew, JOINED, JOINED_ONCE),
    # what waits for room is taken for a failure, a failure for nothing
    Fault(
        OUTCOME, """!= '"room"' ] || return 1""", """!= "" ] || return 1""", {"kind": "room", "after_s": 9, "code": 4}
    ),
    Fault(OUTCOME, '&& has_failed "$id"', "&& false", {"kind": "transfer", "after_s": 9, "code": 1}),
    # the marker is let go of before the ref is taken, or by CMD's end
    Fault(REF_FIRST, "until take", 'until [ ! -e "$data/chunks/$place/READY" ] || exec 8<&-; take'),
    Fault(REF_FIRST, "    exec 8<&- # not before the ref is taken", "    : #"),
    # a registration that has gone, or says something else by now, is not looked at; a want is none
    Fault(acquiring.test_who_waits_for_a_registration_that_goes_is_told, STANDS, ":"),
    Fault(acquiring.test_what_is_wanted_is_waited_for_as_well, STANDS, 'stands "$data/known/$id" || fail 3'),
    Fault(acquiring.test_chunk_comes_where_its_registration_says_by_then, "place=${is_now:-$place}", ":"),
    # a registration is taken for the place of what is here; one that names another id, is cut off, has such keys inside
    Fault(RESPONSIBLE, '[ -n "$(here "${place##*-}" | available)" ] || echo', "echo"),
    Fault(RESPONSIBLE, """is["\\"id\\""] == "\\"" id "\\"\"""", "1"),
    Fault(RESPONSIBLE, "if (whole && ", "if ("),
    Fault(RESPONSIBLE, "depth == 2 && in_range)", "depth == 2)"),
    # a use is noted each time, never, of a chunk that is wanted
    Fault(HIT, "-ge 60", "-ge 0", {"stands": acquiring.fresh}),
    Fault(HIT, '-newer "$path/WANT" -cnewer', "-cnewer", {"stands": acquiring.pinned_by_mtime}),
    Fault(HIT, '-newer "$path/WANT" -cnewer "$path/WANT"', "", {"stands": acquiring.pinned}),
    Fault(NOTED, '    note_use "$place"', "", {"stands": acquiring.stale}),
    Fault(NOTED, '[ -n "$(find', '[ -z "$(find', {"stands": acquiring.registered_since}),
    # a run is read though its head is another's, or it is cut off, or has another name
    Fault(WHOLE, HEAD_CHECK, ":", {"harm": keys.with_another_head}),
    Fault(WHOLE, SIZE_CHECK, ":", {"harm": keys.cut}),
    Fault(WHOLE, "/^run-[0-9a-f]{16}$/p", "/^run-/p", {"harm": keys.of_another_name}),
    # any READY will do; the chunk's own index is not looked at, or read though it is of another READY, or cut off
    Fault(COUNTS, '[ "$ready" = "$4" ]', "true", {"happens": keys.has_another_ready}),
    Fault(COUNTS, "if is_index", "if false && is_index", {"happens": keys.knows_better}),
    Fault(COUNTS, 'take "$place" && holds', "holds", {"happens": keys.is_deleted}),
    Fault(BY_RUN, ' && [ "$(bytes "$own" 48 32 | hex)" = "$ready" ]', "", {"happens": keys.is_of_another_ready}),
    Fault(BY_RUN, SIZE_CHECK, ":", {"happens": keys.is_cut_off}),
    Fault(keys.test_other_key_with_the_same_hash_is_no_hit, '[ "$key" != "$3" ] || return 0', "return 0"),
    # the wrong bucket; one run only; what is listed and gone is let go; a chunk that two runs have is found twice
    Fault(keys.test_key_is_found_among_many, "(32 - bits)", "(31 - bits)"),
    Fault(ALL_RUNS, 'rows "$data/index/$1/$run" "$hash" 2>/dev/null', 'rows "$data/index/$1/$run" "$hash"; break'),
    Fault(ALL_RUNS, "LC_ALL=C sort -u", "LC_ALL=C sort"),
    Fault(ALL_RUNS, "LC_ALL=C sort -u", "LC_ALL=C sort -ru"),
    Fault(keys.test_run_that_goes_after_it_was_listed_is_looked_for_anew, '[ -n "$gone" ] || break', "break"),
    Fault(keys.test_key_is_taken_for_hex_digits_and_else_for_text, "tr A-F a-f", "cat"),
]


@pytest.mark.parametrize("one", FAULTS, ids=str)
def test_suite_finds_this_fault(
    one: Fault, layout: Layout, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("flock") is None:
        pytest.skip("flock is not on this machine")
    assert SOUND.count(one.sound) == 1, "the fault cannot be put in any more"
    script = tmp_path / "faulty.sh"
    script.write_text(SOUND.replace(one.sound, one.faulty))
    client = Client(["sh", str(script)], data_dir, patience_s=5.0)
    places: dict[str, object] = {
        "monkeypatch": monkeypatch,
        "layout": layout,
        "data_dir": data_dir,
        "tmp_path": tmp_path,
    }
    wanted = one.test.__code__.co_varnames[: one.test.__code__.co_argcount]
    if "chunk" in wanted:
        places["chunk"] = chunk = a_want()
        put_known(data_dir, chunk)
    if "places" in wanted:
        places["places"] = keys.three_chunks(layout)
    called = "key_client" if "key_client" in wanted else "client"
    given = {name: place for name, place in places.items() if name in wanted}
    with pytest.raises((AssertionError, pytest.fail.Exception, subprocess.TimeoutExpired)):
        one.test(**{called: client}, **given, **one.given)
