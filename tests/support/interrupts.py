"""Interrupting a call at each point where CPython lets the exception of a signal in.

These are the beginning of a function, a jump back, and the end of a call of C (RESUME, JUMP_BACKWARD and CALL in its
ceval.c). A trace function that counts the bytecodes of fsdm raises in each of them, one after the other. Not each line
is one: between the last call within a `with lock:` and the release of the lock there is none, though a line is told of.
"""

import dis
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from types import CodeType, FrameType
from typing import Any

import fsdm

PACKAGE = os.path.dirname(fsdm.__file__)


class Interrupt(BaseException):
    """What a signal's handler raises, as KeyboardInterrupt is."""


@cache
def _points(code: CodeType) -> dict[int, bool]:
    """Find the bytecodes before which a signal is looked for: offset → whether that is after a call.

    Where another handler has the bytecode after a call than the call itself, a trace function cannot raise as it does.
    """
    found, call = {}, None
    bytecode = dis.Bytecode(code)
    handlers = {
        offset: entry.target for entry in bytecode.exception_entries for offset in range(entry.start, entry.end + 2, 2)
    }
    for one in bytecode:
        if one.opname in {"RESUME", "JUMP_BACKWARD"}:
            found[one.offset] = False
        elif call is not None and handlers.get(call) == handlers.get(one.offset):
            found[one.offset] = True
        call = one.offset if one.opname.startswith("CALL") else None
    return found


def _interrupted(call: Callable[[], Any], number: int) -> str | None:
    left, where = number, None
    in_python: set[int] = set()  # the ids of frames that have called a function of Python: its end is no point

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left, where
        if event == "call" and frame.f_back is not None and not frame.f_code.co_name.startswith("__"):
            in_python.add(id(frame.f_back))
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode" and where is None:
            after_call = _points(frame.f_code).get(frame.f_lasti)
            if after_call is False or (after_call and id(frame) not in in_python):
                left -= 1
                if left < 0:
                    where = f"{os.path.relpath(frame.f_code.co_filename, PACKAGE)}:{frame.f_lineno}"
                    raise Interrupt(where)
            in_python.discard(id(frame))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with suppress(Interrupt, Exception):  # a library may wrap what is raised in its midst
            call()
    finally:
        sys.settrace(before)
    return where


def interrupts(call: Callable[[], Any]) -> Iterator[str]:
    """Make a call again and again, interrupted at its first point, its second …, until one comes to its end."""
    number = 0
    while (where := _interrupted(call, number)) is not None:
        yield where
        number += 1
