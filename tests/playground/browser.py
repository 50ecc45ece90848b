"""Headless Chromium, driven over a pipe by its own DevTools protocol: real keys, mouse and fingers."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
_COMPLAINTS = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
KEYS = {"Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, " ": 32}


class Browser:
    """One tab, which shows a page; every error on it fails the next call.

    Args:
        folder: where the page and Chromium's profile are put.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._last, self._session = folder, 0, ""
        self._events: list[dict[str, Any]] = []
        self._buffer = b""
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # Chromium reads descriptor 3 and writes descriptor 4.
        high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 50) for descriptor in (theirs_in, theirs_out)]
        command = [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", f"--user-data-dir={folder / 'profile'}",
            "--remote-debugging-pipe", "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{high[0]} 4>&{high[1]}', "chromium", *command],
            pass_fds=high, env={**os.environ, "HOME": str(folder)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for descriptor in (theirs_in, theirs_out, *high):
            os.close(descriptor)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)

    def open(
        self, page: str, *, width: int = 1280, height: int = 900, phone: bool = False, address: str = ""
    ) -> None:
        """Show a page in a new tab; ``address`` is what stands in its address after ``#``."""
        file = self._folder / "page.html"
        file.write_text(page, encoding="utf-8")
        self._session = ""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.ask("Runtime.enable")
        self.ask("Log.enable")
        self.ask("Network.enable")
        self.ask("Page.enable")
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone,
        )  # fmt: skip
        if phone:
            self.ask("Emulation.setTouchEmulationEnabled", enabled=True)
        self.ask("Page.navigate", url=file.as_uri() + address)
        self.run(
            "if (document.readyState !== 'complete') await new Promise((go) => addEventListener('load', go));"
        )
        self.settle()

    def run(self, script: str) -> Any:
        """What a script, the body of an asynchronous function, returns."""
        answer = self.ask(
            "Runtime.evaluate",
            expression=f"(async () => {{ {script} }})()", awaitPromise=True, returnByValue=True,
        )  # fmt: skip
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def settle(self) -> None:
        """Wait until what has changed is drawn."""
        self.run("for (let i = 0; i < 3; i++) await new Promise((done) => requestAnimationFrame(done));")
        said = [event for event in self._events if event["method"] in _COMPLAINTS]
        assert not said, said

    def requests(self) -> list[str]:
        """What has been loaded, besides the page."""
        urls = [
            e["params"]["request"]["url"] for e in self._events if e["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith("file:") and url != "about:blank"]

    def key(self, name: str, *, shift: bool = False, times: int = 1) -> None:
        for _ in range(times):
            for kind in ("keyDown" if name == " " else "rawKeyDown", "keyUp"):
                text = {"text": " "} if kind == "keyDown" else {}
                self.ask(
                    "Input.dispatchKeyEvent",
                    type=kind, key=name, code="Space" if name == " " else name,
                    windowsVirtualKeyCode=KEYS[name], modifiers=8 * shift, **text,
                )  # fmt: skip
        self.settle()

    def mouse(self, *points: tuple[float, float]) -> None:
        """Press at the first point, move through the others, release at the last."""
        for kind, (x, y) in [("mousePressed", points[0]), *(("mouseMoved", p) for p in points[1:]),
                             ("mouseReleased", points[-1])]:  # fmt: skip
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
        self.settle()

    def finger(self, *points: tuple[float, float]) -> None:
        for kind, point in [
            ("touchStart", points[0]),
            *(("touchMove", p) for p in points[1:]),
            ("touchEnd", None),
        ]:
            touches = [] if point is None else [{"x": point[0], "y": point[1]}]
            self.ask("Input.dispatchTouchEvent", type=kind, touchPoints=touches)
        time.sleep(0.05)  # a tap becomes a click
        self.settle()

    def picture(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))

    def ask(self, method: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol; its answer."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._last:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            if "method" in answer:
                self._events.append(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], 60)
            assert ready, "Chromium says nothing any more"
            part = os.read(self._in, 1 << 20)
            assert part, "Chromium has ended"
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        return dict(json.loads(message))


def main() -> None:
    """``python -m tests.playground.browser``: docs/images/playground.png anew."""
    from torchopt_course.playground import page

    with tempfile.TemporaryDirectory() as folder:
        browser = Browser(Path(folder))
        browser.open(page(), width=1280, height=760)
        browser.picture(Path("docs/images/playground.png"))
        browser.close()


if __name__ == "__main__":
    main()
