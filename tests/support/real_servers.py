"""Web servers of the distribution, each a child on loopback that serves the files of one directory."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.waiting import PATIENCE_S, eventually

NGINX = """
pid {etc}/pid; error_log stderr; daemon off; master_process off;
events {{}}
http {{
    access_log off;
    client_body_temp_path {etc}/body; proxy_temp_path {etc}/proxy; fastcgi_temp_path {etc}/fastcgi;
    uwsgi_temp_path {etc}/uwsgi; scgi_temp_path {etc}/scgi;
    server {{ listen 127.0.0.1:{port}; root {files}; gzip on; gzip_types *; gzip_min_length 1; }}
}}
"""
APACHE = """
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
PidFile {etc}/pid
ErrorLog {etc}/log
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule filter_module {modules}/mod_filter.so
LoadModule deflate_module {modules}/mod_deflate.so
User nobody
Group nogroup
DocumentRoot {files}
SetOutputFilter DEFLATE
"""
LIGHTTPD = """
server.document-root = "{files}"
server.bind = "127.0.0.1"
server.port = {port}
server.errorlog = "{etc}/log"
server.upload-dirs = ( "{etc}" )
server.modules = ( "mod_deflate" )
mimetype.assign = ( ".txt" => "text/plain", "" => "application/octet-stream" )
deflate.mimetypes = ( "text/" )
deflate.allowed-encodings = ( "gzip" )
"""
CADDY = """
{{
    admin off
    auto_https disable_redirects
    skip_install_trust
    storage file_system {etc}
    servers {{
        protocols h1 h2 h3
    }}
}}
https://127.0.0.1:{port} {{
    tls {certificate}.crt {certificate}.key
    root * {files}
    encode gzip
    respond /protocol {{http.request.proto}}
    file_server
}}
"""


SERVICE = Path(__file__).parents[2] / "tools" / "service"


def _of_peers(name: str, root: str, listen: dict[str, str]) -> str:
    """The example of `tools/service` that serves a node's chunks, for a port and a directory of the tests."""
    text = (SERVICE / name).read_text().replace("{", "{{").replace("}", "}}")
    for given, here in {root: "{files}", **listen}.items():
        assert given in text, given
        text = text.replace(given, here)
    return text


@dataclass(frozen=True)
class Kind:
    """A server: its program, its configuration, and its command."""

    program: str
    configuration: str
    command: Callable[[str, str], list[str]]  # of its configuration and directory
    scheme: str = "http"


KINDS = {
    "nginx": Kind("nginx", NGINX, lambda path, etc: ["-p", etc, "-c", path, "-e", "stderr"]),
    "apache": Kind("apache2", APACHE, lambda path, etc: ["-d", etc, "-f", path, "-DFOREGROUND"]),
    "lighttpd": Kind("lighttpd", LIGHTTPD, lambda path, etc: ["-D", "-f", path]),
    "caddy": Kind("caddy", CADDY, lambda path, etc: ["run", "--adapter", "caddyfile", "--config", path], "https"),
}


PEERS = {
    "nginx": Kind(
        "nginx",
        NGINX.partition("    server {{")[0]
        + _of_peers("peers.nginx.conf", "/var/lib/fsdm", {"listen 8081": "listen 127.0.0.1:{port}"})
        + "}}\n",
        KINDS["nginx"].command,
    ),
    "caddy": Kind(
        "caddy",
        "{{\n\tadmin off\n\tstorage file_system {etc}\n}}\n"
        + _of_peers("peers.Caddyfile", "/var/lib/fsdm", {"http://:8081": "http://127.0.0.1:{port}"}),
        KINDS["caddy"].command,
    ),
}


class RealServer:
    """One that can be killed, and started again at the same port."""

    def __init__(self, kind: Kind, etc: Path, files: Path, certificate: Path) -> None:
        program = shutil.which(kind.program, path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            pytest.skip(f"there is no {kind.program} here")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = int(free.getsockname()[1])
        modules = "/usr/lib/apache2/modules"  # Debian's
        if kind.program == "apache2" and not os.path.isdir(modules):
            pytest.skip(f"there are no modules in {modules}")
        text = kind.configuration.format(
            etc=etc, files=files, port=self._port, certificate=certificate, modules=modules
        )
        (etc / "configuration").write_text(text)
        self._command = [program, *kind.command(str(etc / "configuration"), str(etc))]
        self._said = etc / "said"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"{kind.scheme}://127.0.0.1:{self._port}"

    def start(self) -> None:
        home = str(self._said.parent)
        with self._said.open("ab") as said:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
                env={**os.environ, "HOME": home, "XDG_DATA_HOME": home, "XDG_CONFIG_HOME": home},
            )
        eventually(self._answers, f"{self._command[0]} listens")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._said.read_text()
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self._port)) == 0

    def kill(self) -> None:
        """SIGKILL it and its children."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(PATIENCE_S)
            self._process = None


@contextmanager
def real_server(kind: Kind, etc: Path, files: Path, certificate: Path) -> Iterator[RealServer]:
    """Start one, and kill it at the end."""
    server = RealServer(kind, etc, files, certificate)
    try:
        server.start()
        yield server
    finally:
        server.kill()
