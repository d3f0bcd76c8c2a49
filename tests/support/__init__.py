"""What nearly every test takes: waiting, the HTTP source, processes, locks and file systems."""

from tests.support.filesystems import *  # noqa: F403
from tests.support.locks import *  # noqa: F403
from tests.support.processes import *  # noqa: F403
from tests.support.source import *  # noqa: F403
from tests.support.waiting import *  # noqa: F403
