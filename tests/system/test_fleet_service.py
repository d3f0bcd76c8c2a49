"""What runs a fleet: its units and manifests are taken as they stand, and their commands are those that there are."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from fsdm.cli.commands import VERBS
from fsdm.cli.main import build_parser
from tests.support import PATIENCE_S, eventually, ran

SERVICE = Path(__file__).parents[2] / "tools" / "service"
FLEET = SERVICE / "fleet"
UNITS = sorted(FLEET.glob("*.service"))
BIN = "/opt/fsdm/bin/"
analyzes = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
DASK: dict[str, Any] = yaml.safe_load((FLEET / "dask.yaml").read_text())


def settings(unit: Path) -> dict[str, list[str]]:
    """The settings of a unit, by name."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def here(unit: Path, path: Path) -> Path:
    """A unit, of a program that is here."""
    made = path / unit.name
    made.write_text(re.sub(rf"{BIN}\w+", sys.executable, unit.read_text()))
    return made


@analyzes
@pytest.mark.parametrize("unit", [*UNITS, *FLEET.glob("*.timer")], ids=lambda unit: unit.name)
def test_systemd_has_nothing_to_say_about_a_unit(unit: Path, tmp_path: Path) -> None:
    for one in UNITS:  # a timer names its service
        here(one, tmp_path)
    done = ran("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", here(unit, tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@analyzes
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_little_is_left_that_a_service_could_do(unit: Path, tmp_path: Path) -> None:
    done = ran("systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=20", here(unit, tmp_path))
    assert done.returncode == 0, done.stdout[-300:]


def manifests() -> Iterator[dict[str, Any]]:
    yield from yaml.safe_load_all((FLEET / "kubernetes.yaml").read_text())


PODS = {
    one["metadata"]["name"]: (one["spec"]["jobTemplate"]["spec"] if one["kind"] == "CronJob" else one["spec"])[
        "template"
    ]
    for one in manifests()
    if "template" in one["spec"] or one["kind"] == "CronJob"
}
CONTAINERS = {box["name"]: box for pod in PODS.values() for box in pod["spec"]["containers"]}


def commands() -> Iterator[list[str]]:
    for unit in UNITS:
        [command] = settings(unit)["ExecStart"]
        yield shlex.split(command.removeprefix(BIN))
    for box in CONTAINERS.values():
        yield box["command"]


OF_FSDM = [one for one in commands() if one[0] == "fsdm" and one[1] in VERBS]


@pytest.mark.parametrize("command", OF_FSDM, ids=" ".join)
def test_command_is_one_of_fsdm(command: Sequence[str]) -> None:
    values = [re.sub(r"\$[({]\w+[)}]", "x", word) for word in command[1:]]
    assert build_parser({command[1]}).parse_args(values).verb == command[1]


@pytest.mark.parametrize("command", [one for one in commands() if one[0] == "dask"], ids=" ".join)
def test_command_is_one_of_dask(command: Sequence[str]) -> None:
    told = ran(sys.executable, "-m", "dask", command[1], "--help").stdout
    options = {word for word in command if word.startswith("--")}
    assert {one for one in options if not re.search(rf"{one}\b", told)} == set()


def test_every_process_of_dask_keeps_to_tls_and_none_serves_a_dashboard() -> None:
    tls = DASK["distributed"]["comm"]
    assert tls["require-encryption"] is True
    assert {"ca-file", "scheduler", "worker", "client"} < set(tls["tls"])
    for command in commands():
        if command[0] == "dask":
            assert "--no-dashboard" in command
            assert "tls" in " ".join(command) or "${SCHEDULER}" in command
    for unit in ("fsdm-scheduler", "fsdm-worker"):
        assert "DASK_CONFIG=/etc/fsdm/dask.yaml" in settings(FLEET / f"{unit}.service")["Environment"]
    for name in ("scheduler", "worker"):
        assert {"name": "DASK_CONFIG", "value": "/etc/fsdm/dask/dask.yaml"} in CONTAINERS[name]["env"]


def test_who_runs_queries_may_change_no_chunk() -> None:
    unit = settings(FLEET / "fsdm-worker.service")
    assert unit["User"] == ["fsdm-query"]
    assert unit["SupplementaryGroups"] == ["fsdm-read"], "not of those who ask"
    assert unit["ReadOnlyPaths"] == ["/var/lib/fsdm"]
    assert "ReadWritePaths" not in unit
    [data] = [mount for mount in CONTAINERS["worker"]["volumeMounts"] if mount["mountPath"] == "/data"]
    assert data["readOnly"] is True
    assert CONTAINERS["worker"]["securityContext"]["runAsUser"] != CONTAINERS["follow"]["securityContext"]["runAsUser"]
    sysusers = (FLEET / "fsdm-fleet.sysusers").read_text()
    assert re.findall(r"^m (\S+) (\S+)$", sysusers, re.MULTILINE) == [("fsdm-query", "fsdm-read")]
    users = set(re.findall(r"^u (\S+)", sysusers, re.MULTILINE)) | {"fsdm"}
    assert {settings(one)["User"][0] for one in UNITS} == users


def test_no_container_is_root_or_may_become_it() -> None:
    for pod in PODS.values():
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["automountServiceAccountToken"] is False
        for box in pod["spec"]["containers"]:
            security = box["securityContext"]
            assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True)
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in box["resources"]["limits"]


def test_only_those_of_the_queries_reach_each_other() -> None:
    by_kind = {one["kind"]: one["spec"] for one in manifests()}
    labels = by_kind["NetworkPolicy"]["podSelector"]["matchLabels"]
    assert by_kind["NetworkPolicy"]["ingress"] == [{"from": [{"podSelector": {"matchLabels": labels}}]}]
    having = {name for name, pod in PODS.items() if labels.items() <= pod["metadata"]["labels"].items()}
    assert having == {"fleet-scheduler", "fleet-node"}
    assert by_kind["CronJob"]["concurrencyPolicy"] == "Forbid"
    for one in manifests():
        if one["kind"] in {"Deployment", "DaemonSet"}:
            chosen = one["spec"]["selector"]["matchLabels"]
            assert chosen.items() <= one["spec"]["template"]["metadata"]["labels"].items()


CLIENT = """
import sys
from distributed import Client
with Client(scheduler_file=sys.argv[1], timeout=float(sys.argv[2])) as client:
    client.wait_for_workers(1, timeout=float(sys.argv[2]))
    print(client.submit(sum, (20, 22)).result())
"""


def certificates(path: Path) -> None:
    """A CA, and a certificate of it."""
    new = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj"]
    sign = ["openssl", "x509", "-req", "-days", "2", "-CAcreateserial"]
    lines = [
        [*new, "/CN=fleet-ca", "-x509", "-days", "2", "-keyout", path / "ca.key", "-out", path / "ca.pem"],
        [*new, "/CN=node", "-keyout", path / "node.key", "-out", path / "node.csr"],
        [*sign, "-CA", path / "ca.pem", "-CAkey", path / "ca.key", "-in", path / "node.csr", "-out", path / "node.pem"],
    ]
    for line in lines:
        assert ran(*line).returncode == 0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_dask_works_under_these_settings_and_hears_nobody_without_a_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates(tmp_path)
    (tmp_path / "dask.yaml").write_text((FLEET / "dask.yaml").read_text().replace("/etc/fsdm/tls", str(tmp_path)))
    monkeypatch.setenv("DASK_CONFIG", str(tmp_path / "dask.yaml"))
    at, dask = tmp_path / "scheduler.json", [sys.executable, "-m", "dask"]
    found = ["--scheduler-file", str(at), "--no-dashboard"]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = [*dask, "scheduler", "--protocol", "tls", "--host", "127.0.0.1", "--port", "0", "--no-show", *found]
    running = [subprocess.Popen(scheduler, **silent)]
    try:
        eventually(at.exists)
        assert json.loads(at.read_text())["address"].startswith("tls://")
        worker = [*dask, "worker", "--nworkers", "1", "--local-directory", str(tmp_path), *found]
        running.append(subprocess.Popen(worker, **silent))
        done = ran(sys.executable, "-c", CLIENT, at, PATIENCE_S)
        assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr[-2000:]
        monkeypatch.delenv("DASK_CONFIG")
        assert ran(sys.executable, "-c", CLIENT, at, 3).returncode != 0, "it has no certificate"
    finally:
        for process in reversed(running):
            process.kill()
            process.wait()
