"""Documents that others write are taken or refused, and cost little memory."""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fsdm.model.documents import DataChunk, Failure, Manifest
from fsdm.model.errors import DataDirectoryError, InvalidInputError
from fsdm.model.layout import FILES_MAX, MANIFEST_MAX_BYTES, WANT_MAX_BYTES, Place, is_chunk_dir
from fsdm.model.parts import PartsDocument
from fsdm.model.units import parse_size
from fsdm.status.reading import read_status
from fsdm.store.catalog import Catalog
from fsdm.store.data_dir import check_format
from fsdm.store.filesystem import FileSystem
from fsdm.store.json_files import read_manifest
from fsdm.store.leader_lock import read_lock
from fsdm.store.scan import look
from fsdm.transfer.resume_record import Parts
from fsdm.verify.manifest_check import damage
from tests.support.fuzzing import DATASET, ID, SHA, data_directory, fuzz, mangled, rewritten, shown, stays_inside, words


def _document(**fields: object) -> bytes:
    return json.dumps(fields).encode()


WHOSE = {"id": ID, "dataset_id": DATASET, "block_range": {"start": 0, "end": 35}}
B = {"url": "https://h/b", "mirrors": ["http://m/b"], "size": 7, "sha256": SHA}
WANT = _document(**WHOSE, files={"a": "http://h/a", "b": B}, note={"deep": [1, 2.5, None, True]})
READY = _document(format=1, **WHOSE, files={"a": {"size": 3, "blake3": SHA, "etag": '"x"'}})
TOLD = {"kind": "transfer", "error": "no", "hint": "", "attempts": 3, "first_at": 1.5, "last_at": 2}
FAILED = _document(id=ID, **TOLD, next_attempt_at=3, marker={"ino": 1, "mtime_ns": 2, "size": 3})
A = {
    "url": SHA,
    "validator": '"v"',
    "total": 9,
    "size": 3,
    "blake3": SHA,
    "extents": [{"start": 5, "end": 7, "blake3": SHA}],
}
PARTS = _document(boot_id="x", files={"a": A})
FORMAT = b'{"format": 1}\n'
OWNER = b'{"pid": 1, "host": "h", "since": 1.5}\n'
DOCUMENTS = [WANT, READY, FAILED, PARTS, FORMAT, OWNER]

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
documents = mangled(DOCUMENTS, NASTY) | rewritten(DOCUMENTS, VALUES)


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
    assert all(
        re.match("[a-z][a-z0-9+.-]*://.", url, re.IGNORECASE) for file in chunk.files.values() for url in file.urls
    )
    assert all(url.isprintable() for file in chunk.files.values() for url in file.urls)
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
