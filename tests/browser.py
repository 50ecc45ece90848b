"""Headless Chromium, driven over a pipe by its DevTools protocol: no server and no driver are needed.

with Browser(tmp_path) as browser:
    problems = browser.open("file:///tmp/page.html")  # after everything has loaded
    title = browser.evaluate("document.title")
    browser.screenshot(path)
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

PATIENCE = 60.0  # seconds; a busy machine is no failure


def chromium() -> str | None:
    """The program, if there is one here."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


class Browser:
    """One tab. What the page complains of is collected in `problems`."""

    def __init__(self, profile: Path, *, offline: bool = True) -> None:
        program = chromium()
        assert program is not None
        words = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
        ]
        words += [f"--user-data-dir={profile}", "--no-first-run", "--disable-extensions"]
        read, self._send = os.pipe()
        self._receive, write = os.pipe()
        # Chromium reads its commands from file 3 and writes answers to file 4, which ours must not be.
        to_browser, from_browser = (fcntl.fcntl(end, fcntl.F_DUPFD, 50) for end in (read, write))
        shell = f'exec 3<&{to_browser} 4>&{from_browser}; exec "$0" "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, program, *words],
            pass_fds=(to_browser, from_browser),
            stderr=subprocess.DEVNULL,
        )
        for end in (read, write, to_browser, from_browser):
            os.close(end)
        self._unread = b""
        self._count = 0
        self._events: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        if offline:
            self.call(
                "Network.emulateNetworkConditions",
                offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1,
            )  # fmt: skip

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._send)
        os.close(self._receive)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command, and wait for its answer."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]  # type: ignore[no-any-return]

    def _read(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._unread:
            if not select.select([self._receive], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError("Chromium does not answer")
            self._unread += os.read(self._receive, 1 << 16)
        message, _, self._unread = self._unread.partition(b"\0")
        event: dict[str, Any] = json.loads(message)
        if "method" in event:
            self._events.append(event)
            self._note(event["method"], event["params"])
        return event

    def _note(self, method: str, params: dict[str, Any]) -> None:
        """Keep what a user would find in the console in red or yellow, and what could not be loaded."""
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.problems.append(
                " ".join(str(arg.get("value", arg.get("description"))) for arg in params["args"])
            )
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{params['entry']['text']} ({params['entry'].get('url', '')})")
        elif method == "Network.loadingFailed":
            self.problems.append(f"not loaded: {params['type']}, {params['errorText']}")

    def open(self, url: str) -> list[str]:
        """Go to a page, wait until it has loaded, fonts included, and return what it complained of."""
        self.problems, self._events = [], []
        self.call("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._read()
        self.evaluate("document.fonts.ready.then(() => true)")
        return self.problems

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript; of a promise, what it comes to."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description"))
        return answer["result"].get("value")

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """The visible part as PNG, or the whole page."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(picture["data"]))
