"""What stands beside a reconciler: asked over HTTP, written to a file, told to systemd. A real one, and a stuck one."""

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fsdm import DataManager
from fsdm.model.errors import InvalidInputError
from fsdm.monitoring.service import Service
from fsdm.reconcile.heartbeat import GRACE_S
from tests.support import FSDM, PATIENCE_S, Source, begun, eventually, fsdm, owner
from tests.support.chunks import put_want
from tests.support.monitoring import Stuck, systemd


def ask(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read().decode()


@contextmanager
def served(dm: DataManager) -> Iterator[str]:
    """The URL of the service of this manager."""
    with Service(address="127.0.0.1:0", environment={}) as service, service.attend(dm):
        assert service.url is not None
        yield service.url


def test_before_the_directory_is_open_it_is_healthy_and_not_ready(data_dir: Path) -> None:
    with Service(address="127.0.0.1:0", environment={}) as service:
        assert ask(f"{service.url}/healthz")[0] == 200
        assert ask(f"{service.url}/readyz") == (503, "starting: the data directory is being opened\n")
        assert ask(f"{service.url}/metrics")[0] == 503
        with DataManager(data_dir) as dm, service.attend(dm):
            assert ask(f"{service.url}/readyz") == (200, "the data directory is open\n")
            assert "fsdm_reconciling 1.0" in ask(f"{service.url}/metrics")[1]
            assert "process_open_fds" in ask(f"{service.url}/metrics")[1]
        assert ask(f"{service.url}/readyz") == (503, "stopping\n")


def test_stuck_loop_and_its_end_are_told_everywhere(
    dm: DataManager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with systemd() as it:
        environment = {"NOTIFY_SOCKET": it.address, "WATCHDOG_USEC": "60000"}
        with Service(address="127.0.0.1:0", environment=environment) as service, service.attend(dm):
            assert it.heard() == ["READY=1", "STATUS=reconciling"]
            assert ask(f"{service.url}/healthz") == (200, "reconciling\n")
            stuck = Stuck(dm, monkeypatch)
            try:
                stuck.ahead_s = GRACE_S + 1
                status, why = ask(f"{service.url}/healthz")
                assert (status, why.startswith("the reconciler is stuck")) == (503, True)
                text = ask(f"{service.url}/metrics")[1]
                assert "fsdm_healthy 0.0" in text
                assert float(re.findall(r"^fsdm_loop_late_seconds (.*)$", text, re.MULTILINE)[0]) > GRACE_S
                while it.heard()[0] == "WATCHDOG=1":  # what was on its way
                    pass
                heard = [it.heard() for _ in range(5)]
                assert {len(one) for one in heard} == {1}
                assert all(one[0].startswith("STATUS=the reconciler is stuck") for one in heard)
            finally:
                stuck.gate.set()
            eventually(lambda: ask(f"{service.url}/healthz")[0] == 200)
            eventually(lambda: it.heard()[0] == "WATCHDOG=1")


def test_a_directory_that_is_taken_away_is_no_longer_ready(data_dir: Path) -> None:
    with DataManager(data_dir) as dm, served(dm) as url:
        assert ask(f"{url}/readyz")[0] == 200
        data_dir.rename(data_dir.with_name("aside"))
        assert ask(f"{url}/readyz")[0] == 503
        assert eventually(lambda: dm.error)
        data_dir.with_name("aside").rename(data_dir)
        for probe in ("readyz", "healthz"):
            assert ask(f"{url}/{probe}") == (503, "the reconciler has ended: see the log\n")
        assert ask(f"{url}/metrics")[0] == 200


def test_who_stands_by_is_healthy_and_ready(dm: DataManager, data_dir: Path) -> None:
    with DataManager(data_dir) as standby, served(standby) as url:
        assert ask(f"{url}/healthz") == (200, "standing by: this process does not reconcile\n")
        assert ask(f"{url}/readyz")[0] == 200
        assert "fsdm_reconciling 0.0" in ask(f"{url}/metrics")[1]


def test_without_any_wish_nothing_stands_beside_it(dm: DataManager) -> None:
    with Service(environment={}) as service, service.attend(dm):
        assert service.url is None


def test_a_wish_that_cannot_be_met_is_a_clear_error(dm: DataManager, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"--metrics-file: .* does not end in \.prom"):
        Service(file="fsdm.txt", environment={})
    service = Service(file=str(tmp_path / "none" / "x.prom"), environment={})
    with pytest.raises(InvalidInputError, match=r"--metrics-file: .*No such file"), service, service.attend(dm):
        pass


def test_fsdm_run_serves_writes_notifies_and_clears_up(data_dir: Path, tmp_path: Path, source: Source) -> None:
    chunk, failing = source.chunk(), source.chunk(start=10, end=20)
    source.fault(f"/{failing.id}/blocks.parquet", status=404)
    file = tmp_path / "fsdm.prom"
    with systemd() as it:
        command = [*FSDM, "run", "-d", data_dir, "--metrics-addr", "127.0.0.1:0", "--metrics-file", file, "--json"]
        with begun(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"NOTIFY_SOCKET": it.address, "WATCHDOG_USEC": "300000"},
        ) as process:
            where = r".* info    metrics are at ((http://127\.0\.0\.1:\d+)/metrics); a page to look at is \2/\n"
            said = re.fullmatch(where, process.stderr.readline())
            assert said is not None
            assert it.heard() == ["READY=1", "STATUS=reconciling"]
            assert owner(data_dir) == process.pid
            assert it.heard() == ["WATCHDOG=1", "STATUS=reconciling"]
            for one in (chunk, failing):
                put_want(data_dir, one)
            eventually(lambda: 'fsdm_events_total{kind="available"} 1.0' in ask(said[1])[1])
            eventually(lambda: 'fsdm_failures_total{cause="http_404"} 1.0' in ask(said[1])[1])
            assert 'fsdm_stored_bytes{part="here"} 2000.0' in ask(said[1])[1]
            assert "fsdm_reconciling 1.0" in file.read_text()
            assert "process_open_fds" not in file.read_text()
            process.send_signal(signal.SIGTERM)
            assert it.all_until("STOPPING=1")[-1] == ["STOPPING=1", "STATUS=stopping"]
            out, err = process.communicate(timeout=PATIENCE_S)
            assert (process.returncode, err) == (0, "")
    told = [json.loads(line) for line in out.splitlines()]
    [came] = [one for one in told if one["kind"] == "available"]
    assert (came["dataset_id"], came["size_bytes"]) == (chunk.dataset_id, 2000)
    assert 0 < came["fetch_s"] <= came["after_s"] + 0.1
    assert {one["cause"] for one in told if one["kind"] == "failed"} == {"http_404"}
    assert not file.exists()


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (["--metrics-addr", "nonsense"], "is no address"),
        (["--metrics-addr", "192.0.2.1:9464"], "--metrics-addr"),
        (["--metrics-file", "x.txt"], "does not end in .prom"),
        (["--metrics-addr", "127.0.0.1:0", "--once"], "--once"),
    ],
)
def test_a_wish_that_cannot_be_met_ends_with_2_and_makes_nothing(data_dir: Path, wish: list[str], said: str) -> None:
    done = fsdm("run", "-d", data_dir, *wish)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not data_dir.exists()


def test_a_textfile_that_cannot_be_written_ends_with_2(data_dir: Path, tmp_path: Path) -> None:
    done = fsdm("run", "-d", data_dir, "--metrics-file", tmp_path / "none" / "x.prom")
    assert (done.returncode, "--metrics-file" in done.stderr) == (2, True)


def test_who_does_not_ask_for_it_does_not_pay_for_it(data_dir: Path) -> None:
    program = (
        "import sys, fsdm.cli.main\n"
        f"code = fsdm.cli.main.main(['run', '-d', {str(data_dir)!r}, '--once'])\n"
        "print(code, *[name for name in ('prometheus_client', 'wsgiref', 'http.server') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "0\n", done.stderr
