"""Logging that never raises: whatever a handler does, what was told of goes on."""

import logging
from collections.abc import Iterator

import pytest

from fsdm.concurrency.log import Log


@pytest.fixture
def broken() -> Iterator[logging.Handler]:
    """A handler that raises what is set as its `error`."""

    class Broken(logging.Handler):
        error: BaseException = OSError("no space left")

        def emit(self, record: logging.LogRecord) -> None:
            raise self.error

    handler, logger = Broken(), logging.getLogger("fsdm")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.mark.parametrize("error", [OSError("no space left"), SystemExit(1), GeneratorExit()])
def test_handler_that_raises_is_told_of_once(
    broken: logging.Handler, error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    broken.error = error
    log = Log("fsdm")
    for _ in range(3):
        log.warning("it is so")
    assert capsys.readouterr().err.count("Traceback") == 1


def test_ctrl_c_in_the_main_thread_is_no_failure_of_a_handler(broken: logging.Handler) -> None:
    broken.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        Log("fsdm").warning("it is so")


def test_record_names_the_caller_and_keeps_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    Log("fsdm").warning("%s is so", "it", extra={"chunk_id": "x"})
    (record,) = caplog.records
    assert (record.getMessage(), record.filename, record.chunk_id) == ("it is so", "test_log.py", "x")
    assert record.funcName.startswith("test_record_names")
