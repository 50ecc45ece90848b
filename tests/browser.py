"""Headless Chromium, driven over a pipe by its DevTools protocol: no server and no driver are needed.

The fixture `browser` of tests/conftest.py is one:

    problems = browser.open("file:///tmp/page.html")  # after everything has loaded
    title = browser.run("return document.title;")
    browser.mouse((100, 100), (150, 120))  # real keys, mouse and fingers
    browser.picture(path)
"""

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

PATIENCE = 60.0  # seconds; a busy machine is no failure
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
KEYS = {"Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, " ": 32}

Point = tuple[float, float]


class Browser:
    """One tab. What its page complains of is collected in `problems`.

    Args:
        folder: where Chromium's profile is put, and pages that are shown.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._count, self._unread = folder, 0, b""
        self._session = self._target = ""
        self._events: list[dict[str, Any]] = []
        self.problems: list[str] = []
        theirs_in, self._send = os.pipe()
        self._receive, theirs_out = os.pipe()
        # Chromium reads its commands from file 3 and writes answers to file 4, which ours must not be.
        high = [fcntl.fcntl(end, fcntl.F_DUPFD, 50) for end in (theirs_in, theirs_out)]
        command = [
            str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--hide-scrollbars", "--no-first-run", "--disable-extensions", "--no-proxy-server",
            f"--user-data-dir={folder / 'profile'}", "--remote-debugging-pipe",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{high[0]} 4>&{high[1]}', "chromium", *command],
            pass_fds=high, env={**os.environ, "HOME": str(folder)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (theirs_in, theirs_out, *high):
            os.close(end)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._send)
        os.close(self._receive)

    # -- pages -------------------------------------------------------------------------------------------

    def open(
        self, url: str, *, width: int = 1280, height: int = 900, phone: bool = False, offline: bool = True
    ) -> list[str]:
        """Show a page in a new tab; what it has complained of until all, its fonts too, has loaded."""
        old, self._session = self._target, ""
        self._target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        if old:
            self.ask("Target.closeTarget", targetId=old)
        self._session = self.ask("Target.attachToTarget", targetId=self._target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        if offline:
            speeds = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
            self.ask("Network.emulateNetworkConditions", offline=True, **speeds)
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1}
        self.ask("Emulation.setDeviceMetricsOverride", mobile=phone, **size)
        if phone:
            self.ask("Emulation.setTouchEmulationEnabled", enabled=True)
        self.problems, self._events = [], []
        self.ask("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._read()
        self.run("await document.fonts.ready;")
        return self.problems

    def show(self, page: str, *, address: str = "", **size: Any) -> None:
        """Open a page of which the text is given, without a complaint; `address` begins with #."""
        file = self._folder / "page.html"
        file.write_text(page, encoding="utf-8")
        self.open(file.as_uri() + address, **size)
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
        """Wait until what has changed is drawn; there must not have been a complaint."""
        self.run("for (let i = 0; i < 3; i++) await new Promise((done) => requestAnimationFrame(done));")
        assert not self.problems, self.problems

    def requests(self) -> list[str]:
        """What has been loaded, besides the page."""
        loaded = [e["params"] for e in self._events if e["method"] == "Network.requestWillBeSent"]
        urls = [params["request"]["url"] for params in loaded]
        return [url for url in urls if not url.startswith("file:") and url != "about:blank"]

    def picture(self, file: Path) -> None:
        """The visible part as PNG."""
        file.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))

    # -- keys, mouse, fingers ----------------------------------------------------------------------------

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

    def mouse(self, *points: Point) -> None:
        """Press at the first point, move through the others, release at the last."""
        moves = [("mouseMoved", point) for point in points[1:]]
        for kind, (x, y) in [("mousePressed", points[0]), *moves, ("mouseReleased", points[-1])]:
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
        self.settle()

    def finger(self, *points: Point) -> None:
        """Touch at the first point, move through the others, let go."""
        for number, (x, y) in enumerate(points):
            kind = "touchMove" if number else "touchStart"
            self.ask("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y}])
        self.ask("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        time.sleep(0.05)  # a tap becomes a click
        self.settle()

    # -- the protocol ------------------------------------------------------------------------------------

    def ask(self, method: str, **params: Any) -> Any:
        """A command; its answer."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._count:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        """The next answer or event."""
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._unread:
            if not select.select([self._receive], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError("Chromium does not answer")
            part = os.read(self._receive, 1 << 16)
            assert part, "Chromium has ended"
            self._unread += part
        message, _, self._unread = self._unread.partition(b"\0")
        event: dict[str, Any] = json.loads(message)
        if "method" in event and event.get("sessionId", "") == self._session:  # not of a tab that was closed
            self._events.append(event)
            self._note(event["method"], event["params"])
        return event

    def _note(self, method: str, params: dict[str, Any]) -> None:
        """Keep what a user would find in the console in red or yellow, and what could not be loaded."""
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            words = (str(arg.get("value", arg.get("description"))) for arg in params["args"])
            self.problems.append(" ".join(words))
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{params['entry']['text']} ({params['entry'].get('url', '')})")
        elif method == "Network.loadingFailed":
            self.problems.append(f"not loaded: {params['type']}, {params['errorText']}")


def main() -> None:
    """`python -m tests.browser`: docs/images/playground.png anew."""
    from torchopt_course.playground import page

    with tempfile.TemporaryDirectory() as folder, Browser(Path(folder)) as browser:
        browser.show(page(), width=1280, height=760)
        browser.picture(Path("docs/images/playground.png"))


if __name__ == "__main__":
    main()
