"""Headless Chromium over its debugging pipe: JSON messages, a zero byte after each.

A page is opened from disk; what it logs and what it requests is recorded.
"""

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 60  # that an answer may take


def executable():
    """The path of a browser; None where there is none. `CHROMIUM` names one."""
    paths = [os.environ.get("CHROMIUM"), *map(shutil.which, NAMES)]
    return next((path for path in paths if path), None)


class PageReplacedError(Exception):
    """The page went away for another one while an expression was evaluated in it."""


# what Chromium answers when that happens, by the moment at which it happens
REPLACED = (
    "Inspected target navigated or closed",
    "Execution context was destroyed",
    "Cannot find context",
    "Cannot find default execution context",
)


class Browser:
    """One tab."""

    def __init__(self, profile: Path):
        to_browser, self.writer = os.pipe()
        self.reader, from_browser = os.pipe()
        os.set_blocking(self.reader, False)
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--hide-scrollbars",
            "--disable-background-networking",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
        ]
        # the browser reads file descriptor 3 and writes 4
        shell = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "bash", executable(), *options],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.buffer, self.number, self.session = b"", 0, None
        self.errors, self.requests = [], []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def close(self):
        os.close(self.writer)
        os.close(self.reader)
        self.process.terminate()
        self.process.wait()

    def send(self, method, **params):
        """Send a command and return its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writer, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self.number:
                if answer.get("error", {}).get("message", "").startswith(REPLACED):
                    raise PageReplacedError(answer["error"]["message"])
                assert "error" not in answer, answer
                return answer["result"]

    def _receive(self):
        """The next message; events are recorded on the way."""
        end = time.monotonic() + SECONDS
        while b"\0" not in self.buffer:
            assert time.monotonic() < end, "the browser does not answer"
            try:
                self.buffer += os.read(self.reader, 1 << 16)
            except BlockingIOError:
                time.sleep(0.005)
        text, _, self.buffer = self.buffer.partition(b"\0")
        message = json.loads(text)
        self._record(message.get("method"), message.get("params"))
        return message

    def _record(self, method, params):
        if method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"])[:1000])
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.errors.append(json.dumps(params["args"]))
        if method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def run(self, expression):
        """Evaluate JavaScript, promises awaited, and return its value."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression):
        """Wait until a JavaScript expression, or what its promise gives, is true.

        While one page takes another's place the expression counts as not yet true.
        """
        end = time.monotonic() + SECONDS
        while not self._holds(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.02)

    def _holds(self, expression):
        try:
            return self.run(f"Promise.resolve({expression}).then(Boolean)")
        except PageReplacedError:
            return False

    def open(self, path, width=1280, height=900, scheme="light", language="en"):
        """Open a file in a window of a size, colour scheme and language."""
        self.errors.clear()
        self.requests.clear()
        window = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **window)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=features)
        self.send("Emulation.setUserAgentOverride", userAgent="test", acceptLanguage=language)
        self.send("Page.navigate", url=path.resolve().as_uri())
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def press(self, key):
        """Press and release a key: Tab, Enter, Escape, ArrowRight."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowRight": 39, "ArrowDown": 40}
        event = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        if key == "Enter":
            event["text"] = "\r"
        self.send("Input.dispatchKeyEvent", type="keyDown", **event)
        self.send("Input.dispatchKeyEvent", type="keyUp", **event)

    def screenshot(self, path, whole=False):
        """Write a PNG of the window, or of the whole page."""
        picture = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(picture["data"]))
