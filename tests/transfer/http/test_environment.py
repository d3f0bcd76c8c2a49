"""The environment is read as requests reads it, and requests is only loaded where the environment says anything."""

import os
import sys
from pathlib import Path

import certifi
import pytest

from fsdm.transfer.http.environment import Said, said_of
from tests.support import ran

URL = "https://lake.example/file"
NONE = Said("", certifi.where(), None)
NETRC = "machine lake.example login me password pass\n"


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_silent_environment_is_told_without_requests() -> None:
    code = f"import sys; from fsdm.transfer.http.environment import said_of; print(said_of({URL!r}))"
    done = ran(sys.executable, "-c", f"{code}; print('requests' in sys.modules)")
    assert done.stdout.splitlines() == [str(NONE), "False"]


def test_silent_environment_is_to_requests_what_it_is_to_us(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said_of(URL) == NONE
    monkeypatch.setenv("no_proxy", "another.example")  # now requests is asked
    assert said_of(URL) == NONE


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_proxy_is_found_in_each_of_its_variables(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "http://proxy.example:3128")
    assert said_of(URL) == NONE._replace(proxy="http://proxy.example:3128")
    assert said_of(URL, "").proxy == ""
    assert said_of(URL, "socks5://other.example").proxy == "socks5://other.example"
    monkeypatch.setenv("no_proxy", "lake.example")
    assert said_of(URL) == NONE


def test_proxy_of_another_scheme_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    assert said_of(URL) == NONE
    assert said_of("http://lake.example/file").proxy == "http://proxy.example:3128"


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_bundle_is_found_in_each_of_its_variables(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "/own.pem")
    assert said_of(URL) == NONE._replace(ca="/own.pem")


@pytest.mark.parametrize("name", [".netrc", "_netrc"])
def test_netrc_is_found_at_home(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(NETRC)
    assert said_of(URL) == NONE._replace(auth=("me", "pass"))
    assert said_of("https://other.example/file") == NONE


def test_netrc_is_found_where_its_variable_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "creds").write_text(NETRC)
    assert said_of(URL) == NONE
    monkeypatch.setenv("NETRC", str(tmp_path / "creds"))
    assert said_of(URL) == NONE._replace(auth=("me", "pass"))
