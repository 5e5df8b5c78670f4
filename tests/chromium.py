"""A page opened in a real browser: Chromium without a window, driven through two pipes.

Chromium speaks its DevTools protocol (JSON, each message ended by a zero byte) on the descriptors
3 and 4 of its process, so that neither a port nor another package is needed.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_SECONDS = 60.0


def find_chromium() -> str | None:
    """Path of a Chromium; ``QSMREF_CHROMIUM`` names one that is elsewhere."""
    given = os.environ.get("QSMREF_CHROMIUM")
    return given or next(filter(None, map(shutil.which, NAMES)), None)


class Chromium:
    """A browser with one page; a context manager.

    Parameters
    ----------
    program : str
        Of :func:`find_chromium`.
    folder : Path
        Profile, cache and everything else that the browser writes.
    webgl : bool
        Whether pages can draw with WebGL 2, by software.
    """

    def __init__(self, program: str, folder: Path, webgl: bool = True):
        (low_in, self._out), (self._in, low_out) = os.pipe(), os.pipe()
        # Above 9, so that putting one of them on 3 does not close the other.
        to_browser, from_browser = (fcntl.fcntl(n, fcntl.F_DUPFD, 10) for n in (low_in, low_out))
        os.close(low_in)
        os.close(low_out)
        drawing = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--no-first-run",
            "--disable-dev-shm-usage",
            "--disable-extensions",
            "--disable-background-networking",
            "--disable-component-update",
            "--remote-debugging-pipe",
            f"--user-data-dir={folder}",
            *(drawing if webgl else ["--disable-gpu", "--disable-3d-apis"]),
            "about:blank",
        ]
        # The shell puts the pipes where Chromium looks for them.
        script = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, program, *flags],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(folder)},
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._number, self._session = b"", 0, None
        #: What the browser told unasked, in order.
        self.events: list[dict[str, Any]] = []
        targets = self.send("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        attached = self.send("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_) -> None:
        self._session = None
        try:
            self.send("Browser.close")
            self._process.wait(10)
        except (OSError, RuntimeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def send(self, method: str, **params) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            block = os.read(self._in, 1 << 20)
            if not block:
                raise RuntimeError(f"the browser ended (code {self._process.wait(10)})")
            self._buffer += block
        message, self._buffer = self._buffer.split(b"\0", 1)
        answer = json.loads(message)
        if "method" in answer:
            self.events.append(answer)
        return answer

    def open(
        self, path: Path, width: int = 1280, height: int = 900, dark: bool = False, **media: str
    ) -> None:
        """Open a file in a window of a size; `media` are features such as ``prefers_...``."""
        self.events.clear()
        features = {"prefers-color-scheme": "dark" if dark else "light"}
        features |= {name.replace("_", "-"): value for name, value in media.items()}
        self.send(
            "Emulation.setEmulatedMedia",
            features=[{"name": n, "value": v} for n, v in features.items()],
        )
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.send("Page.navigate", url=path.absolute().as_uri())
        self.until("document.readyState === 'complete' && location.protocol === 'file:'")

    def run(self, script: str) -> Any:
        """Value of an expression in the page."""
        answer = self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"].get("exception", answer)))
        return answer["result"].get("value")

    def until(self, condition: str, seconds: float = _SECONDS) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(condition):
            if time.monotonic() > end:
                raise TimeoutError(condition)
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, and exceptions that nobody caught."""
        self.run("0")
        found = []
        for event in self.events:
            params = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
            elif event["method"] == "Runtime.consoleAPICalled":
                if params["type"] in ("error", "assert", "warning"):
                    words = [str(a.get("value", a.get("description"))) for a in params["args"]]
                    found.append(" ".join(words))
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(params["entry"]["text"])
        return found

    def requests(self) -> list[str]:
        """Addresses that the page asked for."""
        self.run("0")
        asked = [e for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in asked]

    def picture(self, path: Path, full: bool = True, **clip: float) -> Path:
        """Screenshot (PNG) of the whole page, or of what a window shows of it."""
        given: dict[str, Any] = {"captureBeyondViewport": full}
        if clip:
            given["clip"] = {"scale": 1, **clip}
        elif full:
            size = self.send("Page.getLayoutMetrics")["cssContentSize"]
            given["clip"] = {k: size[k] for k in ("x", "y", "width", "height")} | {"scale": 1}
        shot = self.send("Page.captureScreenshot", **given)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path
