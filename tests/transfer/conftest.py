from tests.support.servers import certificate, no_environment, path, scheduler, url
from tests.support.transports import transport

__all__ = ["certificate", "no_environment", "path", "scheduler", "transport", "url"]  # fixtures
