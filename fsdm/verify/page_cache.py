"""The pages of a file that are in the page cache: mincore(2), which reads none of them in.

A read that does not wait (`RWF_NOWAIT`) does not tell: it starts to read what is missing, and a fast disk is done then.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Final

_mincore: Final = ctypes.CDLL(None, use_errno=True).mincore
_mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)

PAGE: Final = mmap.PAGESIZE


def cached_run(fd: int, offset: int, count: int) -> tuple[bool, int]:
    """Tell whether the page at an offset is in the page cache, and how many of `count` bytes share its lot.

    Of another user's file that this process may not write, the kernel says that all of it is there.

    Raises:
        OSError: the file cannot be mapped: not every file system does that.
        ValueError: the file ends before that.
    """
    start = offset - offset % PAGE
    length = offset + count - start
    pages = ctypes.create_string_buffer(-(-length // PAGE))
    with mmap.mmap(fd, length, offset=start, access=mmap.ACCESS_COPY) as mapped:
        first = ctypes.c_char.from_buffer(mapped)
        failed = _mincore(ctypes.addressof(first), length, pages)
        del first  # else the mapping cannot be closed
    if failed:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    states = [page & 1 for page in pages.raw]
    cached = states[0]
    run = next((index for index, state in enumerate(states) if state != cached), len(states))
    return bool(cached), min(start + run * PAGE - offset, count)
