"""Headless Chromium: a page is opened with a script of the test's at its end, and what that says is read."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
# Results stand in an element of their own; an error anywhere on the page stands there too.
_HOOK = """
<script>
const errors = [];
window.addEventListener("error", (event) => errors.push(event.message));
</script>
"""
_ASK = """
<script>
(async () => {{
  const later = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
  let result = null;
  try {{
    await later(200);
    result = await (async () => {{ {script} }})();
  }} catch (error) {{
    errors.push(String(error.stack));
  }}
  const said = document.createElement("pre");
  said.id = "said-to-the-test";
  said.textContent = JSON.stringify({{result, errors}});
  document.body.append(said);
}})();
</script>
"""


def run_page(page: str, folder: Path, script: str, *, width: int = 1280, height: int = 900, hash: str = "",
             reduced_motion: bool = False) -> Any:  # fmt: skip
    """What ``script``, the body of an asynchronous function, returns on the page; errors there fail the test."""
    file = folder / "page.html"
    text = page.replace("<head>", "<head>" + _HOOK, 1).replace("</body>", _ASK.format(script=script) + "</body>", 1)
    file.write_text(text, encoding="utf-8")
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--no-first-run", "--disable-extensions", f"--user-data-dir={folder / 'profile'}",
        f"--window-size={width},{height}", "--virtual-time-budget=20000", "--enable-logging=stderr", "--dump-dom",
    ]  # fmt: skip
    command += ["--force-prefers-reduced-motion"] if reduced_motion else []
    done = subprocess.run(
        [*command, file.as_uri() + hash],
        capture_output=True, text=True, timeout=120, check=True, env={**os.environ, "HOME": str(folder)},
    )  # fmt: skip
    found = re.search(r'<pre id="said-to-the-test">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, f"the page said nothing: {done.stderr[-2000:]}"
    said = json.loads(html.unescape(found[1]))
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not said["errors"], said["errors"]
    assert not console, console
    return said["result"]
