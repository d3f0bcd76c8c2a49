"""The board: who waits is sent what is newer, and only the newest of each part."""

import json
import threading

from fsdm.monitoring.page.board import Board
from tests.support import PATIENCE_S


def test_first_wait_brings_all_and_later_ones_only_what_has_changed() -> None:
    board = Board()
    assert board.put({"a": 1, "b": {"x": [1, 2]}})
    seen, parts = board.wait(0, 0)
    assert {name: json.loads(text) for name, text in parts.items()} == {"a": 1, "b": {"x": [1, 2]}}
    assert not board.put({"a": 1, "b": {"x": [1, 2]}})
    assert board.wait(seen, 0) == (seen, {})
    assert board.put({"a": 2, "b": {"x": [1, 2]}})
    assert board.wait(seen, 0) == (seen + 1, {"a": b"2"})


def test_slow_reader_is_sent_the_newest_of_each_part_and_nothing_is_kept_for_it() -> None:
    board = Board()
    for number in range(10_000):
        board.put({"a": number})
    board.put({"b": "x"})
    assert board.wait(1, 0)[1] == {"a": b"9999", "b": b'"x"'}
    assert len(board._parts) == 2


def test_waiting_ends_with_a_change_and_with_the_end() -> None:
    board, woken = Board(), []
    threads = [threading.Thread(target=lambda: woken.append(board.wait(0, PATIENCE_S)[1])) for _ in range(3)]
    for thread in threads:
        thread.start()
    board.put({"a": 1})
    for thread in threads:
        thread.join(PATIENCE_S)
    assert woken == [{"a": b"1"}] * 3
    board.close()
    assert board.wait(1, PATIENCE_S) == (1, {})
    assert board.is_closed


def test_text_that_is_no_unicode_is_sent_as_ascii() -> None:
    board = Board()
    board.put({"a": "\udc80\n</script>"})
    assert board.wait(0, 0)[1]["a"] == b'"\\udc80\\n</script>"'
