"""A call that cannot be cut, in a thread of its own, which its caller may leave to itself.

Invariant: a result has one owner: the caller, or `late` where the caller has gone.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from fsdm.concurrency.cancellation import Cancellation

T = TypeVar("T")


def call_detached(
    work: Callable[[], T],
    stop: Cancellation,
    timeout_s: float,
    name: str,
    late: Callable[[T], object] = lambda _: None,
) -> T:
    """Return what `work` returns in a thread of this name; a result that comes too late is given to `late`.

    Raises:
        StoppedError: `stop` was set meanwhile.
        TimeoutError: there was no result in time.
        RuntimeError: the system gives no thread.
        What `work` raises.
    """
    future: Future[T] = Future()
    done = threading.Event()

    def run(future: Future[T]) -> None:
        try:
            result = work()
        except BaseException as e:
            if future.set_running_or_notify_cancel():
                future.set_exception(e)
        else:
            if future.set_running_or_notify_cancel():
                future.set_result(result)
            else:
                late(result)
        done.set()

    threading.Thread(target=run, args=(future,), name=name, daemon=True).start()
    try:
        stop.wait(timeout_s, done)
        if future.cancel():
            raise TimeoutError(f"no answer within {timeout_s:g} s")
        return future.result()
    except BaseException:
        if not future.cancel() and future.exception() is None:  # it came as the caller went
            late(future.result())
        raise
    finally:
        del future  # it has the error, which has this frame
