"""fsdm in containers: the files as they stand, and what the table of mounts says that was tried here.

The image is not built and no cluster is asked: these are read, and held to what fsdm takes and the protocol needs.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import yaml

from fsdm import DataChunk, DataManager, Limits
from fsdm.cli.main import build_parser
from fsdm.model.units import parse_size
from tests.support import PATIENCE_S, Source, begun, eventually, ran
from tests.support.chunks import bring, chunk_dir

ROOT = Path(__file__).parents[2]
SERVICE = ROOT / "tools" / "service"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, by stage."""
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", (SERVICE / "Dockerfile").read_text(), flags=re.MULTILINE))
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


def said(name: str) -> str:
    """Give what the last instruction of this name says."""
    return [text for instruction, text in instructions() if instruction == name][-1]


def test_image_does_not_run_as_root_and_its_user_has_a_number() -> None:
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", said("USER"))
    uid = said("USER").partition(":")[0]
    assert f"--uid {uid} " in said("RUN")
    names = [name for name, _ in instructions()]
    assert names.index("USER") > max(index for index, name in enumerate(names) if name in {"RUN", "COPY"})


def test_image_runs_fsdm_as_a_command_line_that_there_is() -> None:
    program = yaml.safe_load(said("ENTRYPOINT"))
    arguments = yaml.safe_load(said("CMD"))
    assert program == ["fsdm"]
    assert build_parser().parse_args(arguments).metrics_addr == "0.0.0.0:9464"
    assert said("EXPOSE") == "9464"
    assert f"FSDM_DATA_DIR={said('VOLUME')} " in said("ENV") + " "


def test_its_stop_signal_is_the_one_that_fsdm_ends_by() -> None:
    assert said("STOPSIGNAL") == signal.SIGTERM.name


def test_its_health_check_asks_the_loop_and_fails_with_it() -> None:
    options, _, command = said("HEALTHCHECK").partition("CMD ")
    program = yaml.safe_load(command)
    assert program[:2] == ["python", "-c"]
    compile(program[2], "healthcheck", "exec")
    assert "/healthz" in program[2]
    timeout_s = int(re.findall(r"--timeout=(\d+)s", options)[0])
    assert int(re.findall(r"timeout=(\d+)\)", program[2])[0]) < timeout_s


def test_what_is_copied_is_there_and_is_what_the_package_is_built_from() -> None:
    copies = [shlex.split(text) for name, text in instructions() if name == "COPY" and not text.startswith("--from")]
    for *paths, _ in copies:
        for path in paths:
            assert (ROOT / path).exists(), path
    copied = {path for *paths, _ in copies for path in paths}
    assert {"pyproject.toml", "README.md", "fsdm"} <= copied


def test_each_stage_is_of_one_named_version() -> None:
    assert all(re.match(r"python:\d+\.\d+-slim\b", text) for name, text in instructions() if name == "FROM")


DOCUMENTS = {one["kind"]: one for one in yaml.safe_load_all((SERVICE / "kubernetes.yaml").read_text())}
DAEMON: dict[str, Any] = DOCUMENTS["DaemonSet"]["spec"]["template"]["spec"]
READER: dict[str, Any] = DOCUMENTS["Pod"]["spec"]


def test_pods_share_one_directory_of_the_host_as_a_whole() -> None:
    paths = set()
    for pod in (DAEMON, READER):
        [volume] = pod["volumes"]
        paths.add(volume["hostPath"]["path"])
        for container in pod["containers"]:
            [mount] = container["volumeMounts"]
            assert (mount["name"], mount["mountPath"], mount.get("subPath")) == (volume["name"], "/data", None)
    assert paths == {"/var/lib/fsdm"}
    assert READER["containers"][0]["volumeMounts"][0]["readOnly"] is True


def test_probes_ask_what_there_is_to_be_asked() -> None:
    [container] = DAEMON["containers"]
    [port] = container["ports"]
    assert container["startupProbe"]["httpGet"] == container["livenessProbe"]["httpGet"]
    assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] >= 60
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": port["name"]}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": port["name"]}
    arguments = build_parser().parse_args(container["args"])
    assert arguments.metrics_addr == f"0.0.0.0:{port['containerPort']}"
    assert (arguments.verb, arguments.wait, arguments.max_bytes) == ("run", True, parse_size("900G"))
    annotations = DOCUMENTS["DaemonSet"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])
    assert container["readinessProbe"]["timeoutSeconds"] > 1  # a look at the disk takes as long, at most


def test_nobody_but_the_one_who_gives_the_directory_away_is_root() -> None:
    for pod in (DAEMON, READER):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            security = container["securityContext"]
            assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True)
            assert security["capabilities"] == {"drop": ["ALL"]}
    [owner] = DAEMON["initContainers"]
    assert owner["securityContext"]["runAsUser"] == 0
    user = DAEMON["securityContext"]
    assert f"{user['runAsUser']}:{user['runAsGroup']}" == said("USER")
    assert f"chown {said('USER')} /data" in owner["command"][2]
    assert READER["securityContext"]["supplementalGroups"] == [user["runAsGroup"]]
    assert READER["securityContext"]["runAsUser"] != user["runAsUser"]


def test_reader_s_command_is_one_of_fsdm() -> None:
    [container] = READER["containers"]
    [program, *arguments] = container["command"]
    values = {one["name"]: one["value"] for one in container["env"]}
    arguments = [re.sub(r"\$\((\w+)\)", lambda found: values[found[1]], one) for one in arguments]
    parsed = build_parser().parse_args(arguments[: arguments.index("--")])
    assert (program, parsed.verb, len(parsed.dataset), parsed.block) == ("fsdm", "hold", 64, 7)


def test_daemonset_selects_the_pods_that_it_makes() -> None:
    spec = DOCUMENTS["DaemonSet"]["spec"]
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    assert spec["template"]["spec"]["containers"][0]["image"] == READER["containers"][0]["image"]


APART = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "true"]
apart = pytest.mark.skipif(
    shutil.which("unshare") is None or ran(*APART).returncode != 0, reason="no namespaces may be made here"
)


@contextmanager
def in_a_container(data_dir: Path, mount: Path, script: str) -> Iterator[subprocess.Popen[str]]:
    """A shell in user, mount and pid namespaces of its own, that sees the data directory at `mount`."""
    mount.mkdir()
    bind = f"mount --bind {shlex.quote(str(data_dir))} {shlex.quote(str(mount))} && cd {shlex.quote(str(mount))}"
    command = [*APART[:-1], "--kill-child", "sh", "-c", f"{bind} && {script}"]
    with begun(command, stdin=PIPE, stdout=PIPE, text=True, env={**os.environ, "PWD": str(mount)}) as process:
        yield process


@contextmanager
def held_in_a_container(dm: DataManager, mount: Path, chunk: DataChunk) -> Iterator[subprocess.Popen[str]]:
    """A container that holds a chunk which is to be deleted, until it reads a line; it lists the files then."""
    bring(dm, chunk)
    data_dir = Path(dm.layout.root)
    directory = chunk_dir(data_dir, chunk).relative_to(data_dir)
    script = f"exec flock -s {directory} sh -c 'echo held; read line; ls {directory}/data'"
    with in_a_container(data_dir, mount, script) as process:
        assert process.stdout.readline() == "held\n"
        dm.delete_chunk(chunk.id)
        eventually(lambda: dm.reconciler.loop.results.held_chunks == 1)
        yield process


def local_disks(tmp_path: Path) -> list[Path]:
    """A directory on the disk of the tests, and one in memory."""
    memory = Path("/dev/shm")
    return [tmp_path / "disk", *([memory / f"fsdm-{os.getpid()}-{time.monotonic_ns()}"] if memory.is_dir() else [])]


@apart
def test_reader_in_namespaces_of_its_own_holds_a_chunk_over_a_bind_mount(tmp_path: Path, source: Source) -> None:
    for number, data_dir in enumerate(local_disks(tmp_path)):
        chunk = source.chunk()
        try:
            with DataManager(data_dir) as dm:
                with held_in_a_container(dm, tmp_path / f"mount{number}", chunk) as process:
                    out, _ = process.communicate("\n", timeout=PATIENCE_S)
                    assert out.split() == sorted(chunk.files)  # until the end
                dm.wait_converged(PATIENCE_S)
                assert dm.list_chunks() == []
        finally:
            shutil.rmtree(data_dir, ignore_errors=True)


@apart
def test_reader_that_is_killed_with_its_container_lets_go(tmp_path: Path, source: Source) -> None:
    mount = tmp_path / "mount"
    with DataManager(tmp_path / "data") as dm, held_in_a_container(dm, mount, source.chunk()) as process:
        process.kill()
        dm.wait_converged(PATIENCE_S)


@apart
def test_inotify_tells_of_a_marker_from_another_mount_namespace(tmp_path: Path, source: Source) -> None:
    chunk = source.chunk()
    with DataManager(tmp_path / "data", limits=Limits(poll_s=3600)) as dm:
        bring(dm, chunk)
        with in_a_container(tmp_path / "data", tmp_path / "mount", f"touch delete/{chunk.id}") as process:
            assert process.wait(PATIENCE_S) == 0
            dm.wait_converged(PATIENCE_S)  # no scan would come for an hour
        assert dm.list_chunks() == []
