"""The textfile of the node exporter: whole at every moment, and gone with the process that wrote it."""

import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge

from fsdm.monitoring import textfile as module
from fsdm.monitoring.textfile import textfile
from tests.support import PATIENCE_S, eventually


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Gauge("fsdm_x", "X.", registry=registry).set(1)
    return registry


def test_file_is_written_again_and_again_and_removed(
    tmp_path: Path, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EACH_S", 0.01)
    path = tmp_path / "fsdm.prom"
    with textfile(str(path), registry):
        assert "fsdm_x 1.0" in path.read_text()
        path.write_text("")
        eventually(lambda: "fsdm_x 1.0" in path.read_text())
    assert list(tmp_path.iterdir()) == []


def test_reader_sees_the_whole_file_or_the_one_before(
    tmp_path: Path, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EACH_S", 0.0001)
    path = tmp_path / "fsdm.prom"
    with textfile(str(path), registry):
        inodes = set()
        for _ in range(200):
            with path.open() as file:
                inodes.add(path.stat().st_ino)
                assert file.read().endswith("fsdm_x 1.0\n")
            assert {one.name for one in tmp_path.glob("*.prom")} == {"fsdm.prom"}
        eventually(lambda: path.stat().st_ino not in inodes or len(inodes) > 1)


def test_refusing_disk_is_told_once_and_tried_again(
    tmp_path: Path, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "EACH_S", 0.001)
    writes, write = threading.Semaphore(0), module.write_to_textfile
    fails = True

    def refuse(path: str, registry: CollectorRegistry) -> None:
        writes.release()
        if fails:
            raise OSError(28, "No space left on device")
        write(path, registry)

    path = tmp_path / "fsdm.prom"
    with textfile(str(path), registry):
        monkeypatch.setattr(module, "write_to_textfile", refuse)
        for _ in range(3):
            assert writes.acquire(timeout=PATIENCE_S)
        assert [record.getMessage() for record in caplog.records].count(
            f"{path} cannot be written: [Errno 28] No space left on device"
        ) == 1
        path.write_text("")
        fails = False
        eventually(lambda: "fsdm_x 1.0" in path.read_text())
