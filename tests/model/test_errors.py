"""The exceptions: each class has its exit code and its cause, and says whether a retry can help."""

import errno
import inspect
from typing import get_args

import pytest

from fsdm.model import errors
from fsdm.model.errors import (
    DiskError,
    FsdmError,
    InvalidInputError,
    ReconcilerRunsError,
    TransferError,
    WaitTimeoutError,
)

CLASSES = {name: cls for name, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, FsdmError)}
EXIT_CODES = {name: value for name, value in vars(errors).items() if name.startswith("EXIT_")}


def test_exit_codes_are_different_and_every_class_has_one_of_them() -> None:
    assert len(set(EXIT_CODES.values())) == len(EXIT_CODES)
    assert {cls.exit_code for cls in CLASSES.values()} <= set(EXIT_CODES.values()) - {errors.EXIT_OK}


PROMISED = {
    1: {"FsdmError", "DiskError", "FetchFailedError"},
    2: {"InvalidInputError"},
    3: {"NotAvailableError"},
    4: {"ChunkFailedError", "WaitTimeoutError"},
    5: {"ReconcilerRunsError"},
    6: {"DataDirectoryError", "NoDataDirectoryError", "UnknownFormatError", "UnsafeFileSystemError"},
    9: {"ReconcilerEndedError"},
}


@pytest.mark.parametrize("exit_code", PROMISED)
def test_exit_codes_are_a_promise_to_scripts(exit_code: int) -> None:
    assert {CLASSES[name].exit_code for name in PROMISED[exit_code]} == {exit_code}


def test_only_what_trying_again_can_help_is_transient() -> None:
    transient = {name for name, cls in CLASSES.items() if cls.transient}
    assert transient == {
        "ChunkInUseError",
        "DiskError",
        "NotAvailableError",
        "NotHeldError",
        "PublishedMeanwhileError",
        "ReconcilerRunsError",
        "SchedulerLostError",
        "StaleMarkerError",
        "WaitTimeoutError",
    }


@pytest.mark.parametrize("transient", [True, False])
def test_each_transfer_error_says_for_itself_whether_it_is_transient(transient: bool) -> None:
    error = TransferError("HTTP 503", transient=transient, hint="look at the source")
    assert (error.transient, TransferError.transient) == (transient, False)
    assert (str(error), error.hint, error.retry_after_s) == ("HTTP 503", "look at the source", None)
    assert TransferError("HTTP 429", transient=transient, retry_after_s=7.5).retry_after_s == 7.5


def test_invalid_input_names_the_field_in_its_text() -> None:
    error = InvalidInputError("must not be empty", field="files", hint="name one")
    assert (str(error), error.field, error.hint) == ("files: must not be empty", "files", "name one")
    assert str(InvalidInputError("must not be empty")) == "must not be empty"


def test_who_runs_is_an_attribute_of_the_error() -> None:
    error = ReconcilerRunsError("another process reconciles", owner="pid 7 on a")
    assert (error.owner, error.hint) == ("pid 7 on a", "")


@pytest.mark.parametrize(("cls", "builtin"), [(InvalidInputError, ValueError), (WaitTimeoutError, TimeoutError)])
def test_callers_who_know_only_the_builtin_exceptions_catch_them(cls: type[FsdmError], builtin: type) -> None:
    with pytest.raises(builtin, match="no"):
        raise cls("no")


@pytest.mark.parametrize(
    ("code", "cause"),
    [(errno.ENOSPC, "disk_full"), (errno.EDQUOT, "disk_full"), (errno.EROFS, "disk_read_only"), (errno.EIO, "disk_io"),
     (errno.EACCES, "disk"), (None, "disk")],
)  # fmt: skip
def test_the_cause_of_what_a_disk_refuses_is_its_errno(code: int | None, cause: str) -> None:
    assert DiskError("no", code=code).cause == cause


@pytest.mark.parametrize(
    ("status", "cause"),
    [(403, "http_403"), (404, "http_404"), (410, "http_404"), (429, "http_429"), (400, "http_4xx"), (499, "http_4xx"),
     (500, "http_5xx"), (599, "http_5xx"), (204, "http_other"), (304, "http_other"), (999, "http_other")],
)  # fmt: skip
def test_every_status_has_a_cause(status: int, cause: str) -> None:
    assert errors.cause_of_status(status) == cause


def test_each_class_has_a_cause_out_of_the_closed_set() -> None:
    told = [error.cause for error in (FsdmError("x"), InvalidInputError("x"), TransferError("x"))]
    assert told == ["defect", "want", "answer"]
    assert (errors.HostError("x", what="x").cause, errors.PolicyError("x").cause) == ("connection", "policy")
    assert all(cls.cause in get_args(errors.Cause) for cls in CLASSES.values())
