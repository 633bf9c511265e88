"""Headless Chromium over its DevTools pipe (two file descriptors, JSON, a zero byte between messages): no package needed.

A Page remembers what its console said, which exceptions it threw and every request that it made.
"""

import base64
import itertools
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

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_S = 60.0
KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "ArrowUp": 38, "ArrowDown": 40, "Home": 36, "End": 35, " ": 32, "Tab": 9, "Enter": 13}


class Page:
    """One tab."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        self._numbers = itertools.count(1)
        self._rest = b""
        self._session = ""
        self.console: list[str] = []
        self.requests: list[str] = []
        self._loaded = 0
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> Any:
        """One DevTools command; its result. Raises RuntimeError with the browser's words."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE_S
        while True:
            answer = self._next(deadline)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            if not (data := os.read(self._read, 1 << 20)):
                raise EOFError("the browser has gone")
            self._rest += data
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        self._event(message)
        return message

    def _event(self, message: dict[str, Any]) -> None:
        given = message.get("params", {})
        match message.get("method"):
            case "Runtime.consoleAPICalled":
                self.console.append(" ".join(str(one.get("value", one)) for one in given["args"]))
            case "Runtime.exceptionThrown":
                self.console.append(str(given["exceptionDetails"].get("exception", given["exceptionDetails"])))
            case "Log.entryAdded":
                self.console.append(given["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(given["request"]["url"])
            case "Page.loadEventFired":
                self._loaded += 1
            case _:
                pass

    def open(self, path: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a file and wait until it is there; what console and requests held before is forgotten."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.scheme(dark)
        self.console, self.requests = [], []
        before = self._loaded
        self.ask("Page.navigate", url=path.as_uri())
        deadline = time.monotonic() + PATIENCE_S
        while self._loaded == before:
            self._next(deadline)

    def scheme(self, dark: bool) -> None:
        """Choose the colours; nothing glides, so that a picture shows where things end up."""
        wanted = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        self.ask("Emulation.setEmulatedMedia", features=[{"name": name, "value": value} for name, value in wanted.items()])

    def value(self, expression: str) -> Any:
        """What a JavaScript expression yields, promises awaited."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """A key as a person presses it."""
        text = {" ": " ", "Enter": "\r"}.get(key, "")
        common: dict[str, Any] = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key]}
        self.ask("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **common)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **common)

    def click(self, selector: str) -> None:
        """A click with the mouse in the middle of the first element that fits."""
        box = f"(()=>{{const b=document.querySelector({json.dumps(selector)});b.scrollIntoView({{block:'center'}});"
        box += "const r=b.getBoundingClientRect();return [r.x+r.width/2,r.y+r.height/2]})()"
        x, y = self.value(box)
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def picture(self, path: Path, whole: bool = False) -> None:
        """A PNG of what is seen, or of the whole page."""
        data = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **(self._clip() if whole else {}))
        path.write_bytes(base64.b64decode(data["data"]))

    def _clip(self) -> dict[str, Any]:
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}


@contextmanager
def browser(directory: Path) -> Iterator[Page]:
    """A browser of its own, with its profile in `directory`; gone at the end."""
    assert CHROMIUM is not None
    their_read, our_write = os.pipe()
    our_read, their_write = os.pipe()
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
        "--disable-background-networking", "--no-first-run", f"--user-data-dir={directory}", "--remote-debugging-pipe",
    ]  # fmt: skip
    # The browser speaks on descriptors 3 and 4.
    script = "import os,sys; r,w=int(sys.argv[1]),int(sys.argv[2]); os.dup2(r,10); os.dup2(w,11); os.dup2(10,3); os.dup2(11,4); os.execv(sys.argv[3],sys.argv[3:])"  # noqa: E501
    import sys

    launch = [sys.executable, "-c", script, str(their_read), str(their_write), *command]
    process = subprocess.Popen(
        launch, pass_fds=(their_read, their_write), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env={**os.environ, "HOME": str(directory)},
    )  # fmt: skip
    os.close(their_read)
    os.close(their_write)
    try:
        yield Page(our_read, our_write)
    finally:
        os.close(our_write)
        os.close(our_read)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
