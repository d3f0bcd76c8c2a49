"""The errors that end an action: a want that cannot be read, and what the disk refuses."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from fsdm.model.errors import DiskError

if TYPE_CHECKING:
    from fsdm.model.errors import InvalidInputError
    from fsdm.model.state import Marker


class UnreadableWantError(Exception):
    """The want, or the registration, that an action was to read cannot be taken as it is."""

    def __init__(self, want: Marker, error: InvalidInputError) -> None:
        super().__init__(str(error))
        self.want = want
        self.error = error


def disk_error(error: OSError) -> DiskError:
    """Make the error of an action that the disk has refused."""
    hint = "look at df, df -i, mount, and who may write there"
    if error.errno == errno.EAGAIN:
        hint = "another process has a lease on that file (fcntl(2)), as Samba takes them: it is tried again each second"
    if error.errno == errno.EXDEV:
        hint = "mount the data directory as a whole, and nothing in it"
    return DiskError(f"the disk refuses: {error}", code=error.errno, hint=hint)
