import os
import shlex
from pathlib import Path

import pytest

from fsdm.model.layout import Layout
from tests.conformance.clients import CLIENTS, Client, make


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--client", action="append", metavar="CMD", help="a client to be tested, instead of those of tools/clients"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where a client is given, the tests of the suite itself are left out."""
    if config.getoption("--client", default=None):
        ours = [item for item in items if item.path.parent == Path(__file__).parent]
        others = [item for item in ours if not {"client", "key_client"} & set(getattr(item, "fixturenames", ()))]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    given = metafunc.config.getoption("--client", default=None)
    if "client" in metafunc.fixturenames:
        metafunc.parametrize("client", given or list(CLIENTS), indirect=True)
    if "key_client" in metafunc.fixturenames:
        readers = [name for name, recipe in CLIENTS.items() if recipe.reads_keys]
        metafunc.parametrize("key_client", given or readers, indirect=True)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where clients are built: one place for all workers of a test run."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    out = base / "clients"
    out.mkdir(exist_ok=True)
    return out


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A path that wants to be quoted."""
    return tmp_path / "data * $dir"


@pytest.fixture
def client(request: pytest.FixtureRequest, layout: Layout, data_dir: Path, workshop: Path) -> Client:
    """A client of a data directory that nobody reconciles yet."""
    return _made(request, data_dir, workshop)


@pytest.fixture
def key_client(request: pytest.FixtureRequest, layout: Layout, data_dir: Path, workshop: Path) -> Client:
    """A client that reads indexes of keys as well."""
    return _made(request, data_dir, workshop)


def _made(request: pytest.FixtureRequest, data_dir: Path, workshop: Path) -> Client:
    if request.config.getoption("--client", default=None):
        # a path on the command line is from where pytest was started; a test may start the client elsewhere
        words = shlex.split(request.param)
        return Client([os.path.abspath(word) if os.path.isfile(word) else word for word in words], data_dir)
    return Client(make(request.param, workshop), data_dir)
