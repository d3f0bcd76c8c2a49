"""Everything that others write is read without a crash, a hang, a path that leads out, or unbounded memory.

Bounded in CI; by hand as long as you like: FSDM_FUZZ=100000 python -m pytest tests/system/test_fuzz.py.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import unicodedata
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fsdm import DataManager
from fsdm.cli import main as cli
from fsdm.concurrency.cancellation import Cancellation
from fsdm.model.documents import DataChunk, Failure, FileSource, Manifest, PartsDocument
from fsdm.model.errors import DataDirectoryError, InvalidInputError, PolicyError, TransferError
from fsdm.model.layout import FILES_MAX, MANIFEST_MAX_BYTES, U64_MAX, WANT_MAX_BYTES, Layout, Place, is_chunk_dir
from fsdm.model.source_policy import Policy
from fsdm.model.units import parse_size
from fsdm.status.chunk_status import read_status
from fsdm.store.catalog import Catalog
from fsdm.store.data_dir import check_format, make_layout
from fsdm.store.filesystem import FileSystem, is_directory
from fsdm.store.json_files import read_manifest
from fsdm.store.leader_lock import read_lock
from fsdm.store.marker_removal import clear_temporaries, finish_removals
from fsdm.store.scan import look, scan
from fsdm.transfer.fetcher import HttpFetcher
from fsdm.transfer.http.head import ETAG_MAX, Head
from fsdm.transfer.resume_record import Part, Parts
from fsdm.verify.manifest_check import damage
from tests.support.chunks import an_id, bring, chunk_dir, content
from tests.support.servers import Host
from tests.support.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.source import Source

EXAMPLES = int(os.environ.get("FSDM_FUZZ", "60"))
fuzz = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

ID, DATASET, SHA = "a" * 64, "d" * 64, "5" * 64
WANT = json.dumps(
    {
        "id": ID,
        "dataset_id": DATASET,
        "block_range": {"start": 0, "end": 35},
        "files": {"a": "http://h/a", "b": {"url": "https://h/b", "mirrors": ["http://m/b"], "size": 7, "sha256": SHA}},
        "note": {"deep": [1, 2.5, None, True]},
    }
).encode()
READY = json.dumps(
    {
        "format": 1,
        "id": ID,
        "dataset_id": DATASET,
        "block_range": {"start": 0, "end": 35},
        "files": {"a": {"size": 3, "blake3": SHA, "etag": '"x"'}},
    }
).encode()
FAILED = json.dumps(
    {
        "id": ID,
        "kind": "transfer",
        "error": "no",
        "hint": "",
        "attempts": 3,
        "first_at": 1.5,
        "last_at": 2,
        "next_attempt_at": 3,
        "marker": {"ino": 1, "mtime_ns": 2, "size": 3},
    }
).encode()
PARTS = json.dumps(
    {"boot_id": "x", "files": {"a": {"url": SHA, "validator": '"v"', "total": 9, "size": 3, "blake3": SHA}}}
).encode()
FORMAT = b'{"format": 1}\n'
OWNER = b'{"pid": 1, "host": "h", "since": 1.5}\n'
DOCUMENTS = [WANT, READY, FAILED, PARTS, FORMAT, OWNER]


def words(text: str) -> list[bytes]:
    """The words of a text, each a token of its own."""
    return [word.encode() for word in text.split()]


NASTY = [
    *words(
        r"""
        NaN -Infinity 1e999 -0 18446744073709551616 1.0 true null {} [] "" "\ud800" "\udfff\ud800" "\u0000"
        "../x" "/etc/passwd" "." ".." "a/../../b" "files":{}, "id":"b", "__class__":1, "self":1,
        "files":{"a":"http://h/a","a":"http://h/b"}, " \ , : } ] // é file:///etc/passwd
        "http://[::1" "http://h:99999/" "http:///x" "http://h/\u202e"
        """
    ),
    *(b"9" * 5000, b"1" * 20, b"[" * 3000, b'{"a":' * 3000, b'"' + b"x" * 256 + b'"', b"e\xcc\x81", b"\xed\xa0\x80"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b"\n", b'"HTTP://\xe2\x80\xae/"'),
]


@st.composite
def mangled(draw: st.DrawFn, seeds: list[bytes], tokens: list[bytes]) -> bytes:
    """One of the seeds after a few cuts, copies, and tokens that were put in."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        at, to = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        match draw(st.integers(0, 4)):
            case 0:
                data = data[:at] + data[to:]
            case 1:
                data = data[:to] + data[at:]
            case 2:
                data = data[:at] + draw(st.sampled_from(tokens)) + data[at:]
            case 3:
                data = data[:at] + draw(st.sampled_from(tokens)) + data[to:]
            case _:
                data = data[:at] + draw(st.binary(max_size=4)) + data[at + 1 :]
    return data


VALUES = [
    *words(
        r"""
        NaN -Infinity 1e999 -1 1.0 true null {} [] 18446744073709551616 "\ud800" "\u0000" {"start":0,"end":1,"a":[]}
        "" "." ".." "../x" "/x" "a/b" "a\u0000b" "\u202e" "~" "file:///x" "http://" "http://h:x/" "http://[::1"
        "HTTP://h" ["http://h"] {"url":"http://h","size":-1} {"url":"http://h","sha256":"x"}
        {"url":"http://h","mirrors":["ftp://h"]}
        """
    ),
    *(b"9" * 5000, b'"' + b"x" * 256 + b'"', b"[" * 150 + b"]" * 150, '"e\u0301"'.encode(), b'"http://h/ "'),
]


def spots(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value: what holds it, and its key or index."""
    held = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(held):
        yield value, key
        yield from spots(inner)


@st.composite
def rewritten(draw: st.DrawFn, seeds: list[bytes], values: list[bytes]) -> bytes:
    """One of the seeds, still JSON but for what stands in one place of it, or what one key is called."""
    document = json.loads(draw(st.sampled_from(seeds)))
    holder, key = draw(st.sampled_from(list(spots(document))))
    if isinstance(holder, dict) and draw(st.booleans()):
        holder["HERE"] = holder.pop(key) if draw(st.booleans()) else holder[key]
    else:
        holder[key] = "HERE"
    return json.dumps(document).encode().replace(b'"HERE"', draw(st.sampled_from(values)))


documents = mangled(DOCUMENTS, NASTY) | rewritten(DOCUMENTS, VALUES)


@contextmanager
def data_directory() -> Iterator[Layout]:
    """A data directory for one example, and beside it what is nobody's business."""
    with tempfile.TemporaryDirectory() as parent:
        layout = Layout(f"{parent}/data")
        make_layout(layout, FileSystem(durable=False))
        outside = Path(parent, "outside")
        outside.mkdir()
        (outside / "precious").write_text("precious")
        yield layout
        assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("precious", "precious")]
        assert sorted(os.listdir(parent)) == ["data", "outside"]


def stays_inside(directory: str, name: str) -> bool:
    path = os.path.join(directory, name)
    return os.path.dirname(os.path.normpath(path)) == directory and os.path.basename(path) == name


# ---------------------------------------------------------------------------------------------------------- documents


@given(documents)
@example(WANT)
@example(WANT.replace(b'"a"', b'".."'))
@example(WANT.replace(b'"a"', b'"../x"'))
@example(WANT.replace(b"http://h/a", b"ftp://h/a"))
@fuzz
def test_want_is_taken_or_refused_and_no_name_in_it_leads_out(text: bytes) -> None:
    try:
        chunk = DataChunk.parse_want(text, ID)
    except InvalidInputError:
        return
    assert chunk.id == ID
    assert all(stays_inside("/d/data", name) and len(name.encode()) <= 255 for name in chunk.files)
    assert all(url.lower().startswith(("http://", "https://")) for file in chunk.files.values() for url in file.urls)
    assert stays_inside(f"/d/chunks/{chunk.dataset_id}", chunk.place.name)
    assert is_chunk_dir(chunk.place.name)
    again = DataChunk.parse_want(chunk.to_json(), ID)
    assert (again.place, again.files.keys()) == (chunk.place, chunk.files.keys())


@given(documents)
@example(READY)
@example(FAILED)
@example(PARTS)
@fuzz
def test_every_other_document_is_taken_and_written_back_or_refused(text: bytes) -> None:
    for kind in (Manifest, Failure, PartsDocument):
        try:
            document = kind.parse(text)
        except InvalidInputError:
            continue
        assert kind.parse(document.to_json()) == document or b"NaN" in text or b"1e999" in text
        if isinstance(document, Manifest):
            assert all(stays_inside("/d/data", name) for name in document.files)


@given(st.dictionaries(st.sampled_from(["want", "failed", "ready", "parts", "lock", "format"]), documents, min_size=1))
@example({"lock": b"\xff\x1b[2J" * 2000, "format": b"[" * 4096, "failed": b"[" * (1 << 20), "want": b"[" * (1 << 20)})
@fuzz
def test_data_directory_with_any_documents_can_be_looked_at(found: dict[str, bytes]) -> None:
    with data_directory() as layout:
        place = Place.of(DATASET, range(35), ID)
        partial = layout.partial_of(ID)
        for path in (f"{layout.path(place)}/data", f"{partial}/data"):
            os.makedirs(path)
        paths = {
            "want": [layout.want_marker(ID), layout.want_marker("b" * 64)],
            "failed": [layout.failed_of(ID), layout.failed_of("b" * 64)],
            "ready": [f"{layout.path(place)}/READY"],
            "parts": [f"{partial}/PARTS"],
            "lock": [layout.lock],
            "format": [layout.format_file],
        }
        for name, text in found.items():
            for path in paths[name]:
                Path(path).write_bytes(text)
        catalog = Catalog(layout)
        catalog.refresh()
        look(layout, catalog, ID)
        read_status(layout)
        read_lock(layout)
        read_manifest(layout.path(place))
        damage(layout, place)
        parts = Parts(partial, ["a", "b"], FileSystem(durable=False))
        assert parts.of("a").path == f"{partial}/data/a"
        try:
            check_format(layout)
        except DataDirectoryError:
            return
        for arguments in (["status"], ["status", "--json"], ["ls", "--long"]):
            assert shown(*arguments, "-d", layout.root) == 0


def shown(*arguments: str) -> int:
    """The exit code of a verb whose output must be UTF-8."""
    with io.TextIOWrapper(io.BytesIO(), encoding="utf-8") as out, redirect_stdout(out), redirect_stderr(out):
        return cli.main(arguments)


def bombs() -> dict[str, bytes]:
    """Wants that are small to write and large to read."""
    names = ("".join(name) for size in (1, 2, 3) for name in itertools.product(map(chr, range(97, 123)), repeat=size))
    head = b'{"dataset_id":"%s","block_range":[0,1],"files":{' % DATASET.encode()
    most = head + b",".join(b'"%s":"http://h"' % name.encode() for name in itertools.islice(names, FILES_MAX))
    files = b",".join(b'"%d":"http://h"' % number for number in range(55_000))
    return {
        "arrays": b"[" * WANT_MAX_BYTES,
        "objects": b'{"a":' * (WANT_MAX_BYTES // 5),
        "a deep note": head + b'"a":"http://h"},"note":' + b"[" * 400_000 + b"]" * 400_000 + b"}",
        "a long number": head + b'"a":"http://h"},"note":' + b"9" * 1_000_000 + b"}",
        "a long block": b'{"block_range":[0,' + b"9" * 1_000_000 + b"]}",
        "the same name": head + b",".join([b'"a":"http://h"'] * 60_000) + b"}}",
        "too many files": head + files + b"}}",
        "the most files": most + b"}}",
        "a long string": head + b'"a":"http://h"},"note":"' + b"\\u00e9" * 170_000 + b'"}',
        "a long URL": head + b'"a":"http://h/' + b"%41" * 340_000 + b'"}}',
        "numbers in a list": head + b'"a":"http://h"},"note":[' + b"1," * 500_000 + b"1]}",
        "objects in a list": head + b'"a":"http://h"},"note":[' + b"{}," * 330_000 + b"1]}",
    }


PARSE_WANT = """
from fsdm.model.documents import DataChunk
from fsdm.model.errors import InvalidInputError
text = open(sys.argv[1], "rb").read()
try: DataChunk.parse_want(text, "a" * 64)
except InvalidInputError as e: print("refused", str(e)[:100], file=sys.stderr)
"""
READ_MANIFEST = """
from fsdm.store.json_files import read_manifest
assert read_manifest(sys.argv[1]) is None
"""
MEASURED = """
import resource, sys
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
{}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def kib_taken_by(code: str, argument: Path) -> int:
    """How much memory a process takes for this, its imports among it."""
    command = [sys.executable, "-c", MEASURED.format(code), str(argument)]
    return int(subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout)


@pytest.mark.parametrize("name", bombs())
def test_want_of_a_mebibyte_takes_little_memory(name: str, tmp_path: Path) -> None:
    (tmp_path / "want").write_bytes(bombs()[name])
    assert (tmp_path / "want").stat().st_size <= WANT_MAX_BYTES
    assert kib_taken_by(PARSE_WANT, tmp_path / "want") < 150 << 10


def test_ready_with_ten_million_entries_is_not_read_beyond_its_bound(tmp_path: Path) -> None:
    entry = b'"%d":{"size":1,"blake3":"' + SHA.encode() + b'"},'
    with (tmp_path / "READY").open("wb") as file:
        file.write(READY[: READY.index(b'"a"')])
        for number in range(MANIFEST_MAX_BYTES // len(entry) + 1000):
            file.write(entry % number)
        file.truncate(10_000_000 * len(entry))  # the rest is a hole: what is beyond the bound is not looked at
    assert kib_taken_by(READ_MANIFEST, tmp_path) < 300 << 10


# -------------------------------------------------------------------------------------------------------------- names


KINDS = list(enumerate(["file", "directory", "symlink"], 1))


def odd_names() -> st.SearchStrategy[bytes]:
    ours = [
        *(ID, DATASET, f".{ID}.{'0' * 8}", f".judged-1_2_3_{ID}", ".judged-", ".judged-..", ".judged-_", "READY"),
        *(f"{0:020d}-{35:020d}-{ID}", f"{35:020d}-{0:020d}-{ID}", f"{0:020d}-{U64_MAX + 1:020d}-{ID}", "LOCK"),
        *("٠" * 20 + "-" + "٣" * 20 + "-" + ID, f"{ID}\n", f"{ID} ", ID.upper(), "é", "e\u0301", "\u202e", "\u200b"),
    ]
    texts = st.sampled_from(ours).map(str.encode)
    made = mangled([name.encode() for name in ours], [b"\xff", b"-", b"_", b".", b"~", b"\n", b"0", "é".encode()])
    return (
        (texts | made | st.binary(min_size=1, max_size=80))
        .map(lambda name: name.replace(b"/", b"").replace(b"\0", b"")[:255])
        .filter(lambda name: name not in {b"", b".", b".."})
    )


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["want", "delete", "verify", "partial", "failed", "trash", "chunks", f"chunks/{DATASET}"]),
            odd_names(),
            st.sampled_from(["file", "directory", "symlink"]),
        ),
        max_size=12,
    )
)
@example([("want", b".judged-", "directory"), ("delete", b".judged-1_2_3_" + ID.encode(), "directory")])
@example([(f"chunks/{DATASET}", b"%020d-%020d-" % (0, number) + ID.encode(), kind) for number, kind in KINDS])
@fuzz
def test_entries_of_any_name_are_listed_and_shown_and_lead_nowhere(
    planted: list[tuple[str, bytes, str]],
) -> None:
    with data_directory() as layout:
        os.makedirs(layout.dataset(DATASET))
        outside = os.path.join(os.path.dirname(layout.root), "outside")
        for directory, name, kind in planted:
            path = f"{layout.root}/{directory}/{os.fsdecode(name)}"
            if not os.path.lexists(path):
                match kind:
                    case "file":
                        Path(path).touch()
                    case "directory":
                        os.mkdir(path)
                    case _:
                        os.symlink(outside, path)
        fs = FileSystem(durable=False)
        finish_removals(layout, fs)
        clear_temporaries(layout, fs, 1e12)
        catalog = Catalog(layout)
        catalog.refresh()
        for place in catalog.all_places():
            assert stays_inside(layout.dataset(place.dataset_id), place.name)
            assert Place.of(place.dataset_id, place.block_range, place.chunk_id) == place
            assert catalog.is_stray(place) is not is_directory(layout.path(place))
        for place in catalog.listing():
            assert not os.path.islink(layout.path(place))
        for chunk_id in scan(layout, catalog).ids:
            look(layout, catalog, chunk_id)
        assert shown("status", "-d", layout.root) == shown("status", "--json", "-d", layout.root) == 0
        for name in os.listdir(layout.trash):
            fs.erase(f"{layout.trash}/{name}")
        shutil.rmtree(layout.root)
        os.mkdir(layout.root)


ODD_FILES = [
    *(unicodedata.normalize("NFC", "é.parquet"), unicodedata.normalize("NFD", "é.parquet")),
    *("A", "a", "ß", "ss", "ﬁ", "fi", "İ", "i\u0307", "\u212b", "\u00c5", "A\u030a"),
    *("x\u200by", "xy", "\u202egnp.exe", "\ufeffbom", "tab\there", "line\nfeed", "bell\x07", "\x7f", "\x1b[2J"),
    *("READY", "data", "PARTS", ".hidden", "backup~", "-rf", "--", " ", "a b", "*", "?", "$(id)", "`id`", "\\", "..."),
    *("é" * 127, "x" * 255, "😀" * 63, "con", "nul.txt", "a:b", "%2e%2e%2f", "..\\..\\x", "٣"),
]


def test_unicode_names_of_every_form_stay_as_they_are(data_dir: Path, source: Source) -> None:
    files = {name: source.put(f"/{number}", content(name)) for number, name in enumerate(ODD_FILES)}
    assert len(files) == len(ODD_FILES) == len(set(ODD_FILES))
    chunk = DataChunk(id=an_id(), dataset_id=DATASET, block_range=(0, 1), files=files)
    with DataManager(data_dir) as dm:
        bring(dm, chunk)
        assert sorted(os.listdir(chunk_dir(data_dir, chunk))) == ["READY", "WANT", "data"]
        found = {path.name: path.read_bytes() for path in (chunk_dir(data_dir, chunk) / "data").iterdir()}
        assert found == {name: content(name) for name in ODD_FILES}
        dm.delete_chunk(chunk.id)
        assert not dm.wait(chunk.id, PATIENCE_S)


# --------------------------------------------------------------------------------------------------------------- heads


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


@given(st.lists(heads, min_size=1, max_size=3))
@settings(fuzz, max_examples=max(EXAMPLES // 2, 1))
def test_any_answer_of_a_server_brings_a_file_or_an_error(answers: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as parent, Closing() as host:
        for number, data in enumerate(answers):
            host.answers[f"/{number}"] = data
        host.answers["/elsewhere"] = HEADS[0]
        policy = Policy(hosts=(host.where,))
        fetcher = HttpFetcher(connect_timeout_s=PATIENCE_S, idle_timeout_s=0.2, policy=policy)
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


@given(
    mangled([b"900G", b"1.5Ti", b"4096", b"10KiB"], [b"9" * 400, b".", b"e9", b"-", b"_", b"i", b"\xb2", b"\n", b"T"])
)
@fuzz
def test_size_is_taken_or_refused(data: bytes) -> None:
    try:
        size_bytes = parse_size(data.decode("latin-1"))
    except InvalidInputError:
        return
    assert 1 <= size_bytes < 10**33
