"""Known faults, put into a client on purpose: the suite must find each of them.

A suite that passes whatever it is given shows nothing. So each client here is tools/clients/fsdm.sh with one promise of
the protocol broken, and the test that is about that promise must fail.
"""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fsdm.model.layout import Layout
from tests.conformance import test_asking, test_finding, test_holding
from tests.conformance.clients import HERE, Client

SOUND = (HERE / "fsdm.sh").read_text()


@dataclass(frozen=True, slots=True)
class Fault:
    """In `what`, `sound` is replaced by `faulty`; `test`, called with `given`, must find it."""

    what: str
    sound: str
    faulty: str
    test: Callable[..., None]
    given: dict[str, Any]

    def __str__(self) -> str:
        return self.what.replace(" ", "_")


def fault(what: str, sound: str, faulty: str, test: Callable[..., None], **given: Any) -> Fault:
    return Fault(what, sound, faulty, test, given)


LOCK, READY = "flock -s -n 9", "stands /proc/self/fd/9/READY"
LAST_LOOK = '! stands "$data/delete/${1##*-}"; then'
FIRST_LOOK = '! stands "$data/delete/${1##*-}" || return 1'
FIRST_READY = 'stands "$data/chunks/$1/READY" || return 1'
NO_SYMLINK = '[ "$(readlink /proc/self/fd/9)" = "$data/chunks/$1" ] &&'
EXEC = '            exec "$@"'
ORDER = "sort -t - -k 1,1r -k 2"
MOVE = 'mv -fT -- "$temporary" "$data/$1/$2"'
REMOVE = '    [ -d "$data/$opposite/$2" ] || rm -f -- "$data/$opposite/$2"\n'
HOLDING = test_holding.test_change_before_the_lock_is_seen_after_it
UNLOCKED = test_holding.test_chunk_that_is_to_leave_is_not_even_locked
HIDDEN = test_finding.test_next_in_line_is_found_where_a_chunk_is_not_available
WANTED = test_asking.test_want_appears_whole_under_the_lock_before_the_delete_goes

FAULTS = [
    fault("READY before the lock", f"{LOCK} && {READY}", f"{READY} && {LOCK}", HOLDING, happens=test_holding.leaves),
    fault("READY by path", READY, 'stands "$data/chunks/$1/READY"', HOLDING, happens=test_holding.leaves_for_another),
    fault("no READY", "stands() {", 'stands() { [ "${1##*/}" = READY ] ||', HIDDEN, hide=test_finding.no_ready),
    fault("no READY after the lock", READY, "true", HOLDING, happens=test_holding.is_to_be_replaced),
    fault("no READY before the lock", FIRST_READY, "true", UNLOCKED, happened=test_holding.is_to_be_replaced),
    fault(
        "delete may not be searched",
        'stands "$data/delete/." ||',
        "true ||",
        test_finding.test_who_may_not_look_into_delete_is_told_so,
    ),
    fault("no lock", LOCK, "true", test_holding.test_chunk_is_held_while_cmd_runs_and_free_when_it_has_ended),
    fault("no look at the delete after the lock", LAST_LOOK, "true; then", HOLDING, happens=test_holding.is_deleted),
    fault("no look at the delete before the lock", FIRST_LOOK, "true", UNLOCKED, happened=test_holding.is_deleted),
    fault(
        "a symlink to nowhere is no delete",
        ' || [ -L "$1" ]; }',
        "; }",
        HIDDEN,
        hide=test_finding.delete_symlink_to_nowhere,
    ),
    fault("through a symlink", NO_SYMLINK, "true &&", HIDDEN, hide=test_finding.symlink_in_place_of_a_chunk),
    fault(
        "an exclusive lock",
        LOCK,
        "flock -n 9",
        test_holding.test_several_hold_the_same_chunk_and_it_is_free_when_the_last_has_ended,
    ),
    fault(
        "a lock that is waited for",
        LOCK,
        "flock -s 9",
        test_holding.test_lock_is_shared_and_never_waited_for_unlocked_or_converted,
    ),
    fault(
        "LOCK_UN after a fork",
        EXEC,
        '            "$@" && flock -u 9; exit',
        test_holding.test_child_that_outlives_cmd_holds_on,
    ),
    fault(
        "CMD does not inherit the lock",
        EXEC,
        '            "$@" 9<&-; exit',
        test_holding.test_child_that_outlives_cmd_holds_on,
    ),
    fault(
        "the lock goes with the client",
        EXEC,
        '            "$@" 9<&-; exit',
        test_holding.test_sigkill_of_the_client_takes_the_chunk_from_nobody_who_reads_on,
    ),
    fault(
        "an exclusive end, taken for inclusive",
        'block < "x" $3',
        'block <= "x" $3',
        test_finding.test_chunk_is_found_by_every_block_of_its_half_open_range,
    ),
    fault(
        "an inclusive start, taken for exclusive",
        '"x" $2 <= block',
        '"x" $2 < block',
        test_finding.test_chunk_is_found_by_every_block_of_its_half_open_range,
    ),
    fault(
        "the smallest start first",
        ORDER,
        "sort",
        test_finding.test_of_overlapping_chunks_the_greatest_start_is_responsible,
    ),
    fault(
        "the greatest end first",
        ORDER,
        "sort -t - -k 1,1r -k 2,2r -k 3",
        test_finding.test_of_equal_starts_the_smallest_end_is_responsible,
    ),
    fault(
        "the greatest id first",
        ORDER,
        "sort -t - -k 1,1r -k 2,2 -k 3r",
        test_finding.test_of_equal_ranges_the_smallest_id_is_responsible,
    ),
    fault(
        "only the responsible one is asked",
        'places "$2" | ',
        'places "$2" | LC_ALL=C sort -t - -k 1,1r -k 2 | head -n 1 | ',
        HIDDEN,
        hide=test_finding.delete_file,
    ),
    fault(
        "numbers in floating point",
        '"x" $2 <= block && block < "x" $3',
        "$2 + 0 <= substr(block, 2) + 0 && substr(block, 2) + 0 < $3 + 0",
        test_finding.test_block_numbers_are_exact_up_to_the_end_of_u64,
    ),
    fault(
        "a marker written in place",
        MOVE,
        'cp -fT -- "$temporary" "$data/$1/$2" && rm -f "$temporary"',
        WANTED,
        before=None,
    ),
    fault("no lock of intents", "flock -w 0.005 9 || :", ":", WANTED, before=None),
    fault(
        "the lock of intents is waited for",
        "flock -w 0.005 9 || :",
        "flock -w 100 9 || fail 6 locked",
        test_asking.test_holder_of_the_lock_of_intents_keeps_no_client_from_asking,
    ),
    fault("the opposite goes first", f"    {MOVE}", f"{REMOVE}    {MOVE}", WANTED, before=None),
    fault("the opposite stays", REMOVE, "", test_asking.test_each_intent_removes_its_opposite),
    fault(
        "a marker that others cannot read",
        '(set -C; cat >"$temporary")',
        '(umask 077; cat >"$temporary")',
        test_asking.test_marker_can_be_read_by_a_reconciler_that_is_another_user,
        kind="want",
    ),
    fault(
        "any id in the document",
        "depth == 1 && before == key",
        "before == key",
        test_asking.test_want_stands_under_the_id_that_its_document_names,
    ),
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
