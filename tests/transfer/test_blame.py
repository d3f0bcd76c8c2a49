"""A failure is charged to the server that fails: not to one that redirects there, nor for one odd answer."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fsdm.model.errors import TransferError
from fsdm.transfer.fetcher import HttpFetcher
from tests.support import Source
from tests.support.servers import Host, answering, fetch

pytestmark = pytest.mark.usefixtures("transport")

HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def fetcher(transport: str) -> HttpFetcher:
    return HttpFetcher(transport=transport)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"Content-Length: 5x\r\n\r\nxxxxx",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nxxxxx",
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"X: y\r\n" * 10_000 + b"\r\n",
    ],
)
def test_answer_that_cannot_be_read_is_charged_to_its_file(fetcher: HttpFetcher, path: Path, answer: bytes) -> None:
    with answering([answer] * 4) as (url, asked):
        for number in range(4):
            with pytest.raises(TransferError) as caught:
                fetch(f"{url}/{number}", path, fetcher=fetcher)
            assert caught.value.cause == "answer"
        assert len(asked) == 4
        assert fetcher.hosts.get(url).proven


@pytest.fixture
def redirecting(source: Source) -> Callable[[str], str]:
    def redirect(to: str) -> str:
        url = source.put("/from", b"")
        source.fault("/from", status=302, headers={"Location": to})
        return url

    return redirect


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 503 Busy\r\nRetry-After: 100\r\nContent-Length: 0\r\n\r\n"], ids=["none", "503"]
)
def test_failure_behind_a_redirect_is_charged_to_where_it_leads(
    fetcher: HttpFetcher, path: Path, source: Source, redirecting: Callable[[str], str], answer: bytes
) -> None:
    with answering([answer] * 9) as (target, asked):
        url = redirecting(f"{target.replace('127.0.0.1', 'localhost')}/to")
        with pytest.raises(TransferError):
            fetch(url, path, fetcher=fetcher)
        for _ in range(3):
            with pytest.raises(TransferError, match="is left alone for a while"):
                fetch(url, path, fetcher=fetcher)
        assert len(asked) == 1
        source.put("/other", b"as well")
        assert fetch(f"{source.url}/other", path, fetcher=fetcher)
        assert fetcher.hosts.get(url).proven


@pytest.mark.parametrize("body", [b"", b"not here"])
def test_refusals_do_not_cost_a_connection_each(fetcher: HttpFetcher, path: Path, body: bytes) -> None:
    with Host() as host:
        host.default = b"HTTP/1.1 404 No\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        for number in range(5):
            with pytest.raises(TransferError, match="404"):
                fetch(f"{host.url}/{number}", path, fetcher=fetcher)
        assert (len(host.asked), host.connections) == (5, 1)
