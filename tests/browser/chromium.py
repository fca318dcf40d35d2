# SPDX-License-Identifier: GPL-2.0-or-later
"""A headless browser, spoken to over a pair of pipes (its DevTools protocol): no port, no driver, no network."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = "chromium-headless-shell"
PATIENCE_S = 180.0  # for any answer; the host may be busy
PICTURE_PX = 5000  # the height of a picture
_FLAGS = (
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # small in containers
    "--hide-scrollbars",
    "--no-first-run",
    "--force-color-profile=srgb",
)


class Browser:
    """A running browser; one page at a time is enough."""

    def __init__(self, to: int, from_: int) -> None:
        self._to, self._from = to, from_
        self._pending = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, /, **params: Any) -> dict[str, Any]:
        """The result of one command; what else the browser says meanwhile goes to `events`."""
        self._number += 1
        words: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        os.write(self._to, json.dumps(words | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") != self._number:
                self.events.append(answer)
                continue
            if "error" in answer:
                raise AssertionError(f"{method}: {answer['error']}")
            result: dict[str, Any] = answer["result"]
            return result

    def wait(self, method: str) -> dict[str, Any]:
        """The first event of that name, now or to come."""
        while True:
            for event in self.events:
                if event.get("method") == method:
                    return event
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE_S
        while b"\0" not in self._pending:
            ready, _, _ = select.select([self._from], [], [], max(0.0, until - time.monotonic()))
            data = os.read(self._from, 1 << 20) if ready else b""
            if not data:
                raise AssertionError("the browser does not answer")
            self._pending += data
        message, _, self._pending = self._pending.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


class Page:
    """A page in the browser, as wide and as dark as asked for."""

    def __init__(self, browser: Browser, *, width: int, height: int, dark: bool = False, media: str = "screen") -> None:
        self._browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        self._call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        browser.events.clear()

    def open(self, path: Path) -> None:
        """Load a file and wait until all of it is there."""
        self._call("Page.navigate", url=path.as_uri())
        self._browser.wait("Page.loadEventFired")

    def say(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def picture(self) -> bytes:
        """The page as PNG, as wide as the view and so far down."""
        width, height = self.say("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, PICTURE_PX), "scale": 1}
        shot = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(shot["data"])

    def printed(self) -> bytes:
        """The page as PDF."""
        return base64.b64decode(self._call("Page.printToPDF", printBackground=True)["data"])

    def requests(self) -> list[str]:
        """What the page asked for, its own file included."""
        sent = [event["params"] for event in self._browser.events if event.get("method") == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in sent]

    def complaints(self) -> list[dict[str, Any]]:
        """What the browser found wrong."""
        kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [event["params"] for event in self._browser.events if event.get("method") in kinds]

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)


@contextmanager
def running(home: Path) -> Iterator[Browser]:
    """A browser with a profile of its own in `home`, which ends with the block."""
    program = shutil.which(PROGRAM)
    assert program, f"no {PROGRAM}: run make setup"
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    # The browser reads from 3 and writes to 4; a shell puts them there.
    command = f'exec "$@" 3</dev/fd/{to_read} 4>/dev/fd/{from_write}'
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    words = ["sh", "-c", command, "sh", program, *_FLAGS, *root, f"--user-data-dir={home}", "about:blank"]
    log = (home / "browser.log").open("wb")
    process = subprocess.Popen(
        words, pass_fds=(to_read, from_write), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(home)
    )
    os.close(to_read)
    os.close(from_write)
    try:
        yield Browser(to_write, from_read)
    finally:
        os.close(to_write)  # the browser ends when nobody speaks to it
        os.close(from_read)
        try:
            process.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def _environment(home: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return kept | {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": str(home)}
