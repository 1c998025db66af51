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
    """One tab. `another` opens more in the same browser, with its cookies or without."""

    def __init__(self, profile: Path):
        self.pipe = _Pipe(profile)
        self.is_first, self.context = True, {}
        self._attach()

    def another(self, alone=False):
        """Open one more tab, with this one's cookies, or `alone` with cookies of its own."""
        tab = object.__new__(Browser)
        tab.pipe, tab.is_first, tab.context = self.pipe, False, self.context
        if alone:
            tab.context = self.pipe.send("Target.createBrowserContext")
        tab._attach()
        return tab

    def _attach(self):
        self.errors, self.requests = [], []
        created = self.pipe.send("Target.createTarget", url="about:blank", **self.context)
        self.target = created["targetId"]
        attached = self.pipe.send("Target.attachToTarget", targetId=self.target, flatten=True)
        self.session = attached["sessionId"]
        self.pipe.tabs[self.session] = self
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def close(self):
        """Close the tab; of the first one, the browser."""
        if self.is_first:
            self.pipe.close()
        else:
            self.pipe.send("Target.closeTarget", targetId=self.target)

    def send(self, method, **params):
        """Send a command and return its result."""
        return self.pipe.send(method, self.session, **params)

    def record(self, method, params):
        """Record an event."""
        if method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"])[:1000])
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.errors.append(json.dumps(params["args"]))
        if method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        if method == "Page.javascriptDialogOpening":
            self.errors.append(f"dialog: {params['message']}")
            self.pipe.post("Page.handleJavaScriptDialog", self.session, accept=True)

    def run(self, expression):
        """Evaluate JavaScript, promises awaited, and return its value."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression, seconds=SECONDS):
        """Wait until a JavaScript expression, or what its promise gives, is true.

        While one page takes another's place the expression counts as not yet true.
        """
        end = time.monotonic() + seconds
        while not self._holds(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.02)

    def _holds(self, expression):
        try:
            return self.run(f"Promise.resolve({expression}).then(Boolean)")
        except PageReplacedError:
            return False

    def open(self, path, width=1280, height=900, scheme="light", language="en"):
        """Open a file or an address in a window of a size, colour scheme and language."""
        self.errors.clear()
        self.requests.clear()
        window = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **window)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=features)
        self.send("Emulation.setUserAgentOverride", userAgent="test", acceptLanguage=language)
        url = path if isinstance(path, str) else path.resolve().as_uri()
        scheme = url.partition(":")[0]
        self.send("Page.navigate", url=url)
        self.wait(f"document.readyState === 'complete' && location.protocol === '{scheme}:'")

    def press(self, key, control=False, composing=False, repeat=False):
        """Press and release a key: a letter or digit, Tab, Enter, Escape, ArrowRight, ArrowDown.

        With `composing` it is the event that a browser sends while an input method has the key.
        """
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowRight": 39, "ArrowDown": 40}
        event = {"key": key, "code": key, "modifiers": 2 if control else 0}
        event["windowsVirtualKeyCode"] = codes.get(key) or ord(key.upper())
        if len(key) == 1:
            event["code"] = f"Key{key.upper()}" if key.isalpha() else f"Digit{key}"
        if composing:
            event["windowsVirtualKeyCode"] = 229
        elif key == "Enter" or len(key) == 1:
            event["text"] = "\r" if key == "Enter" else key
        self.send("Input.dispatchKeyEvent", type="keyDown", autoRepeat=repeat, **event)
        self.send("Input.dispatchKeyEvent", type="keyUp", **event)

    def write(self, text):
        """Write a text into the field that has the focus."""
        self.send("Input.insertText", text=text)

    def compose(self, text):
        """Begin to compose with an input method; `write` ends it."""
        end = len(text)
        self.send("Input.imeSetComposition", text=text, selectionStart=end, selectionEnd=end)

    def screenshot(self, path, whole=False):
        """Write a PNG of the window, or of the whole page."""
        picture = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(picture["data"]))


class _Pipe:
    """A browser and the pipe that its tabs share."""

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
        self.buffer, self.number, self.tabs = b"", 0, {}

    def close(self):
        os.close(self.writer)
        os.close(self.reader)
        self.process.terminate()
        self.process.wait()

    def post(self, method, session=None, **params):
        """Send a command and do not wait for its answer."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self.writer, json.dumps(message).encode() + b"\0")

    def send(self, method, session=None, **params):
        """Send a command and return its result."""
        self.post(method, session, **params)
        number = self.number
        while True:
            answer = self._receive()
            if answer.get("id") == number:
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
        tab = self.tabs.get(message.get("sessionId"))
        if tab and "method" in message:
            tab.record(message["method"], message["params"])
        return message
