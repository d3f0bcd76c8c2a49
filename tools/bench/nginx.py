"""The server that all contenders load from: nginx, over HTTP/1.1, and over HTTP/2 behind a link with a delay.

Without the delay HTTP/2 is not offered: on one machine curl and aria2c gain nothing by it, and wget2 and rclone lose.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

FAR: Final = Path(__file__).with_name("far.py")
DELAY_S: Final = 0.01  # each way

CONFIG: Final = """
{user}
worker_processes 2;
pid {base}/nginx.pid;
error_log {base}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; root {base}/files;
  client_body_temp_path {base}/body; proxy_temp_path {base}/proxy; fastcgi_temp_path {base}/fastcgi;
  uwsgi_temp_path {base}/uwsgi; scgi_temp_path {base}/scgi;
  server {{ listen 127.0.0.1:{full} reuseport; location /lake/ {{ alias {base}/files/; }} }}
  server {{ listen 127.0.0.1:{slow} reuseport; limit_rate 20m; }}
  {tls}
}}
"""
TLS: Final = """
  ssl_certificate {base}/tls.crt; ssl_certificate_key {base}/tls.key; ssl_session_cache shared:tls:1m;
  server {{ listen 127.0.0.1:{port} ssl reuseport; }}
  server {{ listen 127.0.0.1:{behind} ssl http2 reuseport; }}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """The ports of 127.0.0.1: at full speed, at 20 MB/s a connection, with TLS, and with TLS 20 ms away.

    The last two are None where there is no openssl.
    """

    full: int
    slow: int
    tls: int | None
    far: int | None
    certificate: str  # the file that a contender has to trust


@contextmanager
def server(base: Path) -> Iterator[Server]:
    """Serve `base`/files."""
    (base / "files").mkdir()
    full, slow, tls, behind, far = _free_ports(5)
    config = base / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    over_tls = TLS.format(base=base, port=tls, behind=behind) if certify(base) else ""
    config.write_text(CONFIG.format(user=user, base=base, full=full, slow=slow, tls=over_tls))
    command = ["nginx", "-e", str(base / "error.log"), "-p", str(base), "-c", str(config)]
    try:
        subprocess.run(command, check=True, capture_output=True)
        with subprocess.Popen(
            [sys.executable, str(FAR), str(DELAY_S), str(far), str(behind)], stdout=subprocess.PIPE
        ) as link:
            try:
                assert link.stdout is not None
                if link.stdout.readline() != b"ready\n":
                    raise RuntimeError("the link with a delay does not start")
                yield Server(full, slow, tls if over_tls else None, far if over_tls else None, str(base / "tls.crt"))
            finally:
                link.kill()
    finally:
        subprocess.run([*command, "-s", "stop"], check=False, capture_output=True)
        deadline = time.monotonic() + 5
        while (base / "nginx.pid").exists() and time.monotonic() < deadline:
            time.sleep(0.01)


def certify(base: Path) -> bool:
    """Make a certificate for 127.0.0.1 that vouches for itself; tell whether there is an openssl to do so."""
    if shutil.which("openssl") is None:
        return False
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    named = ["-subj", "/CN=fsdm bench", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(base / "tls.key"), "-out", str(base / "tls.crt")]
    subprocess.run(["openssl", "req", *kind, *named, *files], check=True, capture_output=True)
    return True


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports
