"""Completions are put where shells look for them: once, and told."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fsdm.cli.completion_files import CompletionFile, file_for, shell_of
from fsdm.model.errors import FsdmError, InvalidInputError
from tests.support import fsdm, fsdm_json

HOME = {"HOME": "/h"}


@pytest.mark.parametrize(
    ("shell", "more", "path"),
    [
        ("bash", {}, "/h/.local/share/bash-completion/completions/fsdm"),
        ("bash", {"XDG_DATA_HOME": "/x"}, "/x/bash-completion/completions/fsdm"),
        ("bash", {"XDG_DATA_HOME": "/x", "BASH_COMPLETION_USER_DIR": "/b"}, "/b/completions/fsdm"),
        ("zsh", {}, "/h/.zfunc/_fsdm"),
        ("fish", {}, "/h/.config/fish/completions/fsdm.fish"),
        ("fish", {"XDG_CONFIG_HOME": "/x"}, "/x/fish/completions/fsdm.fish"),
    ],
)
def test_file_is_where_the_shell_looks(shell: str, more: dict[str, str], path: str) -> None:
    assert file_for(shell, HOME | more).path == path


def test_place_that_there_is_not_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="tcsh has no place of its own"):
        file_for("tcsh", HOME)
    with pytest.raises(InvalidInputError, match="HOME is not set"):
        file_for("bash", {})


def test_shell_is_that_of_the_user() -> None:
    assert shell_of({"SHELL": "/usr/bin/zsh"}) == "zsh"
    with pytest.raises(InvalidInputError, match="SHELL is '/bin/dash'"):
        shell_of({"SHELL": "/bin/dash"})
    with pytest.raises(InvalidInputError, match="SHELL does not say"):
        shell_of({})


def test_installing_twice_is_installing_once(tmp_path: Path) -> None:
    told = fsdm_json_in(tmp_path, "bash")
    file = Path(told["path"])
    assert (told["shell"], told["changed"]) == ("bash", True)
    assert file.is_relative_to(tmp_path)
    before = file.stat().st_ino, file.stat().st_mtime_ns
    assert fsdm_json_in(tmp_path, "bash") == told | {"changed": False}
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == before
    file.write_text("an older one")
    assert fsdm_json_in(tmp_path, "bash")["changed"] is True
    assert file.read_text().rstrip() == fsdm("completion", "bash").stdout.rstrip()
    assert os.listdir(file.parent) == ["fsdm"]


def fsdm_json_in(home: Path, *shell: str) -> dict[str, object]:
    environment = {"HOME": str(home), "XDG_DATA_HOME": "", "XDG_CONFIG_HOME": "", "BASH_COMPLETION_USER_DIR": ""}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return dict(fsdm_json("completion", *shell, "--install"))


def test_what_is_done_and_what_is_left_is_said(tmp_path: Path) -> None:
    done = fsdm("completion", "--install", HOME=str(tmp_path), SHELL="/bin/zsh")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/.zfunc/_fsdm\n")
    assert "new zsh shells complete it" in done.stderr
    assert "fpath=(~/.zfunc $fpath)" in done.stderr
    assert "it is there already" in fsdm("completion", "--install", HOME=str(tmp_path), SHELL="/bin/zsh").stderr


def test_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FsdmError, match="cannot be written: File exists") as e:
        CompletionFile(f"{tmp_path}/file/fsdm").write("text")
    assert "fsdm completion SHELL" in e.value.hint


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish here")
def test_fish_completes_by_itself_then(tmp_path: Path) -> None:
    assert fsdm("completion", "fish", "--install", HOME=str(tmp_path), XDG_CONFIG_HOME="").returncode == 0
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": f"{tmp_path}/.config"}
    done = subprocess.run(
        ["fish", "-c", "complete -C 'fsdm sta'"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=environment,
    )
    assert "status" in done.stdout
