from tests.support.servers import no_environment, path

__all__ = ["no_environment", "path"]  # fixtures
