"""The unit of systemd: it is taken as it stands, and fsdm works within all that it forbids."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fsdm.cli.main import build_parser
from tests.support import FSDM, Source, ran, reconciling
from tests.support.chunks import put_want

SERVICE = Path(__file__).parents[2] / "tools" / "service"
UNIT = SERVICE / "fsdm.service"
analyzes = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def settings() -> dict[str, list[str]]:
    """Read the settings of the unit, by name."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if match := re.fullmatch(r"(\w+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, of a program that is here."""
    path = tmp_path / "fsdm.service"
    path.write_text(UNIT.read_text().replace("/opt/fsdm/bin/fsdm", sys.executable))
    return path


def analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    return ran("systemd-analyze", *arguments)


@analyzes
def test_systemd_has_nothing_to_say_about_the_unit(unit: Path) -> None:
    done = analyze("verify", "--man=no", "--recursive-errors=no", unit)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@analyzes
def test_unit_with_a_mistake_would_be_found(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("WatchdogSec=60", "WatchdogSec=a while"))
    assert "Failed to parse" in analyze("verify", "--man=no", "--recursive-errors=no", unit).stderr


@analyzes
def test_little_is_left_that_the_service_could_do(unit: Path) -> None:
    done = analyze("security", "--offline=yes", "--no-pager", "--threshold=20", unit)
    assert done.returncode == 0, done.stdout[-300:]


def test_its_command_line_is_one_of_fsdm() -> None:
    [command] = settings()["ExecStart"]
    program, *arguments = shlex.split(command)
    parsed = build_parser().parse_args(arguments)
    assert (program, parsed.verb, parsed.wait) == ("/opt/fsdm/bin/fsdm", "run", True)
    assert "FSDM_DATA_DIR=/var/lib/fsdm" in settings()["Environment"]
    assert settings()["ReadWritePaths"] == settings()["RequiresMountsFor"] == ["/var/lib/fsdm"]


def test_it_waits_for_ready_and_is_watched() -> None:
    found = settings()
    assert (found["Type"], found["NotifyAccess"]) == (["notify"], ["main"])
    assert int(found["WatchdogSec"][0]) >= 2 * 20  # it is fed three times in that time
    assert found["RestartPreventExitStatus"] == ["2"]


def test_what_reloads_it_does_not_end_it(data_dir: Path) -> None:
    reloads = settings().get("ExecReload", [])
    if not reloads:
        pytest.skip("the unit has nothing that reloads it")
    assert reloads == ["/bin/kill -HUP $MAINPID"]
    with reconciling(data_dir) as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGHUP)
        done = subprocess.run([*FSDM, "status", "-d", str(data_dir)], capture_output=True, check=False)
        assert (done.returncode, process.poll()) == (0, None)


@analyzes
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_system_call_is_needed_that_the_unit_forbids(data_dir: Path, source: Source, tmp_path: Path) -> None:
    chunk, gone = source.chunk(size=3 << 20), source.chunk(start=20, end=30)
    (data_dir / "want").mkdir(parents=True)
    for one in (chunk, gone):
        put_want(data_dir, one)
    (data_dir / "delete").mkdir()
    trace = tmp_path / "trace"
    for _ in range(2):
        done = ran("strace", "-f", "-qq", "-o", trace, *FSDM, "run", "--once", "-d", data_dir)
        if "ptrace" in done.stderr:
            pytest.skip("nobody may be traced here")
        assert done.returncode == 0, done.stderr
        used = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE))
        assert {"flock", "fsync", "inotify_init1", "renameat2", "rename", "connect"} & used
        [allowed, *forbidden] = settings()["SystemCallFilter"]
        assert used - calls_of(allowed) - {"execve"} == set()  # systemd itself executes it
        for line in forbidden:
            assert used & calls_of(*line.removeprefix("~").split()) == set()
        (data_dir / "delete" / gone.id).touch()


def calls_of(*groups: str) -> set[str]:
    """The system calls of systemd's groups."""
    found: set[str] = set()
    for group in groups:
        for line in analyze("syscall-filter", "--no-pager", group).stdout.splitlines()[1:]:
            name = line.strip()
            found |= calls_of(name) if name.startswith("@") else {name} - {""} if not name.startswith("#") else set()
    return found


def test_it_works_without_memory_that_is_writable_and_executable(data_dir: Path, source: Source) -> None:
    """MemoryDenyWriteExecute=, as prctl(2) has it: PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN; Linux 6.3."""
    chunk = source.chunk(size=3 << 20)
    (data_dir / "want").mkdir(parents=True)
    put_want(data_dir, chunk)
    program = (
        "import ctypes, sys\n"
        "if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0): sys.exit(77)\n"
        "from fsdm.cli.main import main\n"
        f"sys.exit(main(['run', '--once', '-d', {str(data_dir)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode == 77:
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert done.returncode == 0, done.stderr
    assert "available" in done.stderr


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is to be run, as root"
)
def test_sysusers_and_tmpfiles_make_what_unit_and_protocol_say(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for program, name in (("systemd-sysusers", "fsdm.sysusers"), ("systemd-tmpfiles", "fsdm.tmpfiles")):
        create = ["--create"] if program == "systemd-tmpfiles" else []
        ran(program, *create, f"--root={tmp_path}", "-", stdin=(SERVICE / name).read_text()).check_returncode()
    found = re.findall(r"^([\w-]+):[^:]*:(\d+):(.*)$", (tmp_path / "etc" / "group").read_text(), re.MULTILINE)
    groups = {name: (int(number), members) for name, number, members in found}
    [uid] = re.findall(r"^fsdm:[^:]*:(\d+):", (tmp_path / "etc" / "passwd").read_text(), re.MULTILINE)
    assert groups["fsdm-read"][1] == groups["fsdm-ask"][1] == "fsdm"
    data = tmp_path / "var" / "lib" / "fsdm"
    rights = {".": ("fsdm-read", 0o2750), "want": ("fsdm-ask", 0o2775), "delete": ("fsdm-ask", 0o2775)}
    for name, (group, mode) in rights.items():
        found = (data / name).stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (int(uid), groups[group][0], mode), name
    said = [settings()[name] for name in ("User", "Group", "SupplementaryGroups", "UMask")]
    assert said == [["fsdm"], ["fsdm-read"], ["fsdm-ask"], ["0027"]]
