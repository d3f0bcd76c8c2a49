"""Any answer of a server brings a file, or an error that can be shown."""

import math
import os
import re
import socket
import tempfile
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.documents import FileSource
from fsdm.model.errors import PolicyError, TransferError
from fsdm.model.limits import Transport
from fsdm.model.source_policy import Policy
from fsdm.store.filesystem import FileSystem
from fsdm.transfer.fetcher import HttpFetcher
from fsdm.transfer.http.head import ETAG_MAX, Head
from fsdm.transfer.resume_record import Part
from tests.support import PATIENCE_S
from tests.support.fuzzing import EXAMPLES, fuzz, mangled, words
from tests.support.servers import Host

HEADS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
    b'HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1-4/9\r\nContent-Length: 4\r\nETag: "x"\r\n\r\nbody',
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbody",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
    b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 503 Busy\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 404 None\r\nContent-Length: 0\r\nContent-Encoding: gzip\r\n\r\n",
]
FIELDS = """
Content-Length: 5
Content-Length: -1
content-length:4
Content-Length: +4
Content-Length: 4, 4
Content-Length: 0x4
Content-Length: 4_0
Transfer-Encoding: chunked
Transfer-Encoding: gzip, chunked
Transfer-Encoding : chunked
 folded
Connection: close
Connection: keep-alive, CLOSE
Content-Encoding: gzip
Location: file:///etc/passwd
Location: //evil
Retry-After: 99999999999999999999
Retry-After: Fri, 31 Dec 9999 23:59:59 GMT
HTTP/1.0 200 OK
Content-Range: bytes 0-18446744073709551615/*
ffffffffffffffff
-1
4;x=y
"""
HEAD_TOKENS = [
    *(line.encode() + b"\r\n" for line in FIELDS.strip("\n").split("\n")),
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b": ", b":", b" ", b"\t", b"\x00", b"\x0b", b"\x85", b"\xa0", b"\xff"),
    *(b"\x1c", b"9" * 30, b"X: x\r\n" * 101, b"X: " + b"x" * 70_000 + b"\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 50),
]


@st.composite
def relined(draw: st.DrawFn, seeds: list[bytes], lines: list[bytes]) -> bytes:
    """One of the seeds with lines put in, taken out, or changed at their ends."""
    head, _, body = draw(st.sampled_from(seeds)).partition(b"\r\n\r\n")
    parts = head.split(b"\r\n")
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(parts) - 1))
        match draw(st.integers(0, 3)):
            case 0 | 1:
                parts.insert(at + 1, draw(st.sampled_from(lines)).removesuffix(b"\r\n"))
            case 2:
                parts[at] += draw(
                    st.sampled_from([b" ", b"\t", b"\r", b"\xa0", b"\x85", b"\x0b", b"\x00", b"\x7f", b":"])
                )
            case _:
                parts[at] = draw(st.sampled_from([b"", parts[at].lower(), parts[at].replace(b": ", b" : ")]))
    return b"\r\n".join(parts) + b"\r\n\r\n" + body


heads = mangled(HEADS, HEAD_TOKENS) | relined(HEADS, HEAD_TOKENS)


class Closing(Host):
    """One that closes after each answer: what would follow it does not come."""

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            request = connection.recv(65536)
            if not request:  # the client has gone before it asked
                return
            connection.sendall(self.answers.get(request.split(b" ")[1].decode(), self.default))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass


@pytest.mark.parametrize("transport", ["libcurl", "requests"])
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # urllib3's, of an answer that it refuses
@given(answers=st.lists(heads, min_size=1, max_size=3))
@settings(fuzz, max_examples=max(EXAMPLES // 2, 1))
def test_any_answer_of_a_server_brings_a_file_or_an_error(transport: Transport, answers: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as parent, Closing() as host:
        for number, data in enumerate(answers):
            host.answers[f"/{number}"] = data
        host.answers["/elsewhere"] = HEADS[0]
        policy = Policy(hosts=(host.where,))
        fetcher = HttpFetcher(connect_timeout_s=PATIENCE_S, idle_timeout_s=0.2, policy=policy, transport=transport)
        told: list[TransferError] = []
        for number in range(len(answers)):
            part = Part(f"{parent}/{number}")
            source = FileSource(url=f"{host.url}/{number}")
            try:
                entry = fetcher.fetch(source, part, FileSystem(durable=False), Cancellation())
            except TransferError as e:
                told.append(e)
            else:
                assert os.path.getsize(part.path) == entry.size
        assert not any(isinstance(e, PolicyError) and e.transient for e in told)
        assert sorted(os.listdir(parent)) == sorted(set(os.listdir(parent)) & {str(n) for n in range(len(answers))})


NAMES = ["Content-Length", "Content-Range", "ETag", "Last-Modified", "Date", "Accept-Ranges", "Retry-After"]
SOUND = [
    *(b"4", b"9" * 19, b"9" * 30, b"9" * 5000, b"\xb2", b"bytes 4-1/9", b"bytes 1-9/9", b"bytes 1-4/9", b"bytes 0-0/*"),
    *(b'"x"', b'W/"x"', b"bytes", b"120", b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sunday, 06-Nov-94 08:49:37 GMT"),
    b"Sun Nov  6 08:49:37 1994",
]
PUT_IN = [
    *words("- + / : , 0001 9999 -9999 *"),
    *(b"9" * 30, b"9" * 5000, b" ", b"\xb2", b"\xa0", b"\x0b", b"\x00"),
]
fields = st.dictionaries(st.sampled_from(NAMES), mangled(SOUND, PUT_IN).map(lambda data: data.decode("latin-1")))


@given(fields, st.floats(0, 4e9))
@example({"Content-Length": "9" * 30}, 0.0)
@example({"Retry-After": "9" * 400}, 0.0)
@fuzz
def test_no_field_of_a_head_says_what_cannot_be(headers: dict[str, str], now: float) -> None:
    head = Head.of(206, headers.items())
    length, span = head.length, head.span
    assert length is None or 0 <= length < 10**19
    assert span is None or 0 <= span.start < span.end <= (span.total or span.end)
    for text in (head.etag, head.validator):
        assert text is None or (len(text) <= ETAG_MAX and not re.search(r"[\x00-\x1f\x7f]", text))
    wait_s = head.retry_after_s(now)
    assert wait_s is None or (math.isfinite(wait_s) and wait_s >= 0)
    assert head.is_of(head.validator)
    assert head.takes_ranges
