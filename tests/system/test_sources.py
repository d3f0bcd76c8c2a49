"""Sources from end to end: what is asked for comes with what its source has, and nothing shows a secret."""

import base64
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsdm import DataChunk, DataManager, InvalidInputError, Limits, Source
from fsdm.model.layout import Layout
from fsdm.transfer.fetcher import HttpFetcher
from tests.support import PATIENCE_S, eventually, fsdm, reconciling
from tests.support import Source as Server
from tests.support.chunks import an_id, failure, put_want
from tests.support.source import Fault

SECRETS = [f"hush-{number}-xyz" for number in range(5)]


def a_chunk(server: Server, *paths: str) -> DataChunk:
    """A chunk whose files are served at these paths."""
    files = {f"f{number}": server.put(path, b"x" * 1000) for number, path in enumerate(paths)}
    return DataChunk(id=an_id(), dataset_id="d" * 64, block_range=(0, 1), files=files)


class Guarded(Server):
    """A server that has nothing for who does not say the word; `word` is what Authorization is to be."""

    word = ""

    def fault_for(self, path: str, data: bytes) -> Fault:
        said = self.heads[path][-1].get("Authorization")
        return super().fault_for(path, data) if said == self.word else Fault(status=401)


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    with Guarded() as server:
        yield server


def said_until(process: subprocess.Popen[str], part: str) -> str:
    """What a process says on stderr up to the line that has this in it."""
    said = ""
    for line in process.stderr or ():
        said += line
        if part in line:
            return said
    raise AssertionError(f"it has ended without {part!r}: {said}")


def test_run_takes_sources_from_its_file_and_again_on_sighup(data_dir: Path, layout: Layout, guarded: Guarded) -> None:
    config, token = Path(layout.config), data_dir / "lake.token"
    guarded.word = "Bearer one"
    token.write_text("Authorization: Bearer one\n")
    token.chmod(0o600)
    config.write_text(f'[[source]]\nmatch = "{guarded.url}/lake"\nheaders-file = "lake.token"\n')
    first, second, third, other = (a_chunk(guarded, f"/{name}") for name in ("lake/1", "lake/2", "lake/3", "lakes"))
    with reconciling(data_dir) as process:
        put_want(data_dir, first)
        put_want(data_dir, other)
        eventually(lambda: not (data_dir / "want" / first.id).exists() and failure(data_dir, other.id))
        guarded.word = "Bearer two"
        token.write_text("Authorization: Bearer two\n")
        put_want(data_dir, second)
        eventually(lambda: not (data_dir / "want" / second.id).exists())
        guarded.word = "Bearer three"
        config.write_text(f'[[source]]\nmatch = "{guarded.url}"\nheaders = {{ Authorization = "Bearer three" }}\n')
        config.chmod(0o600)
        process.send_signal(signal.SIGHUP)
        said_until(process, "config.toml says 1 source\n")
        put_want(data_dir, third)
        put_want(data_dir, other)
        eventually(lambda: not any((data_dir / "want" / chunk.id).exists() for chunk in (third, other)))
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("more", [(), ("--once",), ("--dry-run",)])
def test_source_that_cannot_be_used_ends_run_with_2(data_dir: Path, layout: Layout, more: tuple[str, ...]) -> None:
    Path(layout.config).write_text('[[source]]\nmatch = "https://lake.example/"\nheaders-file = "lake.token"\n')
    done = fsdm("run", "-d", data_dir, *more)
    assert done.returncode == 2
    assert f"source 1 (https://lake.example/): headers-file: {data_dir}/lake.token: No such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_sources_in_python_hold_until_others_are_given(data_dir: Path, guarded: Guarded) -> None:
    guarded.word = "Bearer one"
    sources = [Source(match=guarded.url, headers={"Authorization": "Bearer one"})]
    with DataManager(data_dir, sources=sources) as dm:
        chunks = [a_chunk(guarded, f"/{number}") for number in range(3)]
        dm.download_chunk(chunks[0])
        assert dm.wait(chunks[0].id, PATIENCE_S)
        dm.change(Limits(bytes_per_s=1e9))
        dm.download_chunk(chunks[1])
        assert dm.wait(chunks[1].id, PATIENCE_S)
        with pytest.raises(InvalidInputError, match=r"source 1 .*: ca: "):
            dm.change(Limits(), [Source(match="https://a", ca="none")])
        dm.change(Limits(), [])
        dm.download_chunk(chunks[2])
        eventually(lambda: failure(data_dir, chunks[2].id))


def test_sources_that_a_fetcher_would_not_use_are_refused(data_dir: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"^sources: a fetcher of one's own"):
        DataManager(data_dir, fetcher=HttpFetcher(), sources=[Source(match="https://a")])
    with DataManager(data_dir, fetcher=HttpFetcher()) as dm, pytest.raises(InvalidInputError, match=r"^sources: "):
        dm.change(Limits(), [Source(match="https://a")])


@pytest.mark.parametrize(
    "sources", [{"match": "https://a"}, [{"match": "https://a"}], Source(match="https://a"), "https"]
)
def test_what_are_no_sources_is_refused(data_dir: Path, sources: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^sources: must be several of Source"):
        DataManager(data_dir, sources=sources)


def test_bounded_source_leaves_the_threads_to_the_others(data_dir: Path, source: Server) -> None:
    slow = [a_chunk(source, f"/slow/{number}") for number in range(6)]
    faults = [source.fault(f"/slow/{number}", stall_at=500) for number in range(6)]
    fast = [a_chunk(source, f"/fast/{number}") for number in range(6)]

    def stalled() -> int:
        return sum(fault.stalled.is_set() for fault in faults)

    sources = [Source(match=f"{source.url}/slow", connections=2)]
    with DataManager(data_dir, limits=Limits(connections=3, jobs=20), sources=sources) as dm:
        for chunk in slow:
            dm.download_chunk(chunk)
        eventually(lambda: stalled() == 2)
        for chunk in fast:
            dm.download_chunk(chunk)
        for chunk in fast:
            assert dm.wait(chunk.id, PATIENCE_S)
        assert stalled() == 2
        for fault in faults:
            fault.gate.set()
        dm.wait_converged(PATIENCE_S)


# ---------------------------------------------------------------------------------------------------------- the secrets


@pytest.fixture
def failing() -> Iterator[list[Server]]:
    """Two servers, whose failures concern no other."""
    with Server() as first, Server() as second:
        yield [first, second]


def texts(data_dir: Path, *, but: set[Path]) -> Iterator[tuple[Path, bytes]]:
    for path in data_dir.rglob("*"):
        if path.is_file() and path not in but:
            yield path, path.read_bytes()


def test_no_failure_shows_a_secret_of_a_source(
    data_dir: Path,
    layout: Layout,
    source: Server,
    failing: list[Server],
    guarded: Guarded,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    redirecting, broken = failing
    token, password = data_dir / "token", data_dir / "password"
    token.write_text(f"X-Token: {SECRETS[1]}\n")
    password.write_text(SECRETS[2])
    for path in (token, password):
        path.chmod(0o600)
    tables: list[dict[str, Any]] = [
        {
            "match": f"{guarded.url}/refused",
            "headers": {"Authorization": f"Bearer {SECRETS[0]}"},
            "headers-file": "token",
        },
        {"match": f"{guarded.url}/user", "user": "me", "password-file": "password"},
        {"match": "http://proxied.invalid/", "proxy": f"http://me:{SECRETS[3]}@127.0.0.1:1"},
        {"match": f"{source.url}/env", "headers-env": {"X-Token": "FSDM_TEST_SECRET"}},
        {"match": f"{source.url}/later", "headers-file": "later"},
        {"match": f"{redirecting.url}/redirected", "headers": {"X-Token": SECRETS[0]}},
        {"match": f"{broken.url}/broken", "headers": {"X-Token": SECRETS[0]}},
    ]
    later = data_dir / "later"
    later.write_text(f"X-Token: {SECRETS[1]}\n")
    later.chmod(0o600)
    redirecting.fault("/redirected", status=302, headers={"Location": f"http://127.0.0.1:1/?{SECRETS[0]}"})
    broken.fault("/broken", raw=f"HTTP/1.1 {SECRETS[0]}\r\n\r\n".encode())
    source.fault("/env", status=404)
    config = Path(layout.config)
    config.write_text("".join(f"[[source]]\n{_toml(table)}" for table in tables))
    config.chmod(0o600)
    chunks = {path: a_chunk(guarded, path) for path in ("/refused", "/user")}
    chunks |= {path: a_chunk(source, path) for path in ("/env", "/later")}
    chunks["/proxy"] = DataChunk(
        id=an_id(), dataset_id="d" * 64, block_range=(0, 1), files={"f": "http://proxied.invalid/f"}
    )
    chunks["/redirected"] = a_chunk(redirecting, "/redirected")
    chunks["/broken"] = a_chunk(broken, "/broken")
    said = []
    monkeypatch.setenv("FSDM_TEST_SECRET", SECRETS[4])
    with reconciling(data_dir, "--log-format", "json") as process:
        later.write_text(SECRETS[1])
        for chunk in chunks.values():
            put_want(data_dir, chunk)
        eventually(lambda: all(failure(data_dir, chunk.id) for chunk in chunks.values()))
        config.write_text(config.read_text() + f'headers-file = ["{SECRETS[0]}"]\n')
        process.send_signal(signal.SIGHUP)
        said.append(said_until(process, "all stays as it was"))
        for verb in (["status"], ["status", "--json"], *(["explain", chunk.id] for chunk in chunks.values())):
            done = fsdm(*verb, "-d", data_dir)
            said.append(done.stdout + done.stderr)
        process.send_signal(signal.SIGTERM)
        said += process.communicate(timeout=PATIENCE_S)
    said.append(fsdm("run", "-d", data_dir, "--once").stderr)
    own = {config, token, password, later}
    basic = base64.b64encode(f"me:{SECRETS[2]}".encode()).decode()
    for secret in (*SECRETS, basic):
        assert [path for path, text in texts(data_dir, but=own) if secret.encode() in text] == []
        assert [text for text in said if secret in text] == []
    errors = {path: (failure(data_dir, chunk.id) or {})["error"] for path, chunk in chunks.items()}
    assert "HTTP 401" in errors["/refused"]
    assert "HTTP 401" in errors["/user"]
    assert "by way of the proxy http://127.0.0.1:1" in errors["/proxy"]
    assert "source 5" in errors["/later"]
    assert {head["X-Token"] for head in source.heads["/env"]} == {SECRETS[4]}
    assert guarded.heads["/user"][0]["Authorization"] == f"Basic {basic}"


def _toml(table: dict[str, Any]) -> str:
    def value(of: object) -> str:
        if isinstance(of, dict):
            return "{ " + ", ".join(f"{key} = {json.dumps(one)}" for key, one in of.items()) + " }"
        return json.dumps(of)

    return "".join(f"{key} = {value(one)}\n" for key, one in table.items())
