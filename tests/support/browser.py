"""A real Chromium, headless, over its DevTools protocol on a pair of pipes: nothing else has to be installed.

Each answer is waited for for so long and no longer; whatever the browser tells in between is kept in `told`.
"""

import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Self

from tests.support.waiting import PATIENCE_S

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
START_S = 60.0  # a browser's first start, on a machine that does much else
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip


class Browser:
    """One browser with one page, in a profile of its own."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        (to_read, self._out), (self._in, to_write) = os.pipe(), os.pipe()
        # the browser reads commands from descriptor 3 and writes answers to 4: a shell in between gives it these
        ends = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (to_read, to_write)]
        script = f'exec 3<&{ends[0]} 4>&{ends[1]}; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", CHROMIUM, *OPTIONS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=ends,
            env={**os.environ, "TMPDIR": str(profile)},  # it is killed in the end, and what it leaves is to be there
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for fd in (to_read, to_write, *ends):
            os.close(fd)
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        self.told: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        target = self.do("Target.createTarget", START_S, url="about:blank")["targetId"]
        self._session = self.do("Target.attachToTarget", START_S, targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.do(f"{domain}.enable")
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._out)
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE_S)
        os.close(self._in)

    def do(self, method: str, patience_s: float = PATIENCE_S, **params: Any) -> dict[str, Any]:
        """One command of the protocol; what it answers."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda told: told.get("id") == number, method, patience_s)
        assert "error" not in answer, (method, answer["error"])
        return dict(answer["result"])

    def open(self, url: str) -> None:
        """Go to a page; returns once it is loaded. What was told before is forgotten."""
        self.told.clear()
        self.do("Page.navigate", url=url)
        self._until(lambda told: told.get("method") == "Page.loadEventFired", f"{url} is loaded", PATIENCE_S)

    def value(self, expression: str) -> Any:
        """What JavaScript makes of an expression, as JSON."""
        answer = self.do("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, (expression, answer["exceptionDetails"])
        return answer["result"].get("value")

    def screen(self, width: int = 1200, height: int = 900, **media: str) -> None:
        """How large the window is, and what the page is to think of its user."""
        self.do("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self.do("Emulation.setEmulatedMedia", features=features)

    def point(self, x: float, y: float) -> None:
        self.do("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key: str) -> None:
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}
        how = {"key": key, "text": {"Enter": "\r"}.get(key, key if len(key) == 1 else "")}
        how |= {"code": key, "windowsVirtualKeyCode": codes[key]} if key in codes else {}
        for kind in ("keyDown", "keyUp"):
            self.do("Input.dispatchKeyEvent", type=kind, **how)

    def complaints(self) -> list[dict[str, Any]]:
        """What the page has said on its console, every exception, and every refusal of its policy."""
        methods = {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"}
        return [told["params"] for told in self.told if told.get("method") in methods]

    def requests(self) -> list[str]:
        return [
            told["params"]["request"]["url"] for told in self.told if told.get("method") == "Network.requestWillBeSent"
        ]

    def _until(self, check: Any, what: str, patience_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + patience_s
        for told in self.told:
            if check(told):
                return told
        while True:
            while b"\0" in self._rest:
                text, self._rest = self._rest.split(b"\0", 1)
                told = json.loads(text)
                self.told.append(told)
                if check(told):
                    return dict(told)
            left = deadline - time.monotonic()
            assert left > 0, f"not in time: {what}"
            if select.select([self._in], [], [], left)[0]:
                read = os.read(self._in, 1 << 16)
                assert read, f"the browser has ended: {what}"
                self._rest += read
