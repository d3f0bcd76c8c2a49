from tests.support.servers import certificate, no_environment, path, scheduler, url

__all__ = ["certificate", "no_environment", "path", "scheduler", "url"]  # fixtures
