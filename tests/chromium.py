"""A page in headless Chromium, used as a user does: with mouse and keyboard, over the browser's own pipe."""

import base64
import json
import os
import select
import shutil
import subprocess
import time

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REASON = "needs Chromium: apt-get install chromium"
_QUIET = ("disable-gpu", "disable-quic", "no-first-run", "disable-background-networking", "disable-sync")
_SECONDS = 120


class Chromium:
    """A browser with one page.

    Args:
        profile: An empty folder for the browser's own files.
    """

    def __init__(self, profile):
        options = [f"--{name}" for name in ("headless", "no-sandbox", *_QUIET, "disable-component-update")]
        command = [CHROMIUM, *options, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        (reads, self._to), (self._from, writes) = os.pipe(), os.pipe()
        # The browser reads commands from descriptor 3 and writes to 4, whatever these are here.
        shell = ["bash", "-c", f'exec "$@" 3<&{reads} 4>&{writes}', "bash", *command]
        self._process = subprocess.Popen(
            shell, pass_fds=(reads, writes), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(reads)
        os.close(writes)
        self._number, self._received, self._session = 0, b"", {}
        self.complaints = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = {"sessionId": session}
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self):
        """End the browser."""
        os.close(self._to)  # it ends when its pipe does
        self._process.wait(timeout=_SECONDS)
        os.close(self._from)

    def call(self, method, **parameters):
        """Call a method of the DevTools protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, **self._session}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, path, width=1280, height=900, dark=False):
        """Open a file in a window of this size; what the page before complained of is forgotten."""
        self.complaints.clear()
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.as_uri())
        self.wait_for("document.readyState === 'complete'")

    def evaluate(self, expression):
        """Return what an expression of JavaScript is, as plain data."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, condition):
        """Wait until a condition is true."""
        end = time.monotonic() + _SECONDS
        while not self.evaluate(condition):
            assert time.monotonic() < end, condition
            time.sleep(0.02)

    def click(self, selector):
        """Click into the middle of an element, which is scrolled to."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{found}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        box = self.evaluate(
            f"(({{x, y, width, height}}) => ({{x: x + width / 2, y: y + height / 2}}))({found}.getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **box, button="left", clickCount=1)

    def write(self, selector, text):
        """Replace what a field holds."""
        self.click(selector)
        self.evaluate(f"document.querySelector({json.dumps(selector)}).select()")
        if text:
            self.call("Input.insertText", text=text)
        else:
            for kind in ("keyDown", "keyUp"):
                self.call("Input.dispatchKeyEvent", type=kind, key="Delete", code="Delete", windowsVirtualKeyCode=46)

    def choose(self, selector, label):
        """Choose an option of a list: the keyboard goes to it, as the list itself is drawn by the system."""
        found = f"document.querySelector({json.dumps(selector)})"
        labels = self.evaluate(f"[...{found}.options].map(option => option.label)")
        self.evaluate(f"{found}.focus()")
        for key, code, times in (("Home", 36, 1), ("ArrowDown", 40, labels.index(label))):
            for _ in range(times):
                for kind in ("keyDown", "keyUp"):
                    self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)
        assert self.evaluate(f"{found}.selectedOptions[0].label") == label

    def picture(self, path, selector=None):
        """Write a picture of the whole page, or of an element, as PNG."""
        box = "document.documentElement" if selector is None else f"document.querySelector({json.dumps(selector)})"
        clip = self.evaluate(
            f"(({{x, y, width, height}}) => ({{x: x + scrollX, y: y + scrollY, width, height, scale: 1}}))"
            f"({box}.getBoundingClientRect())"
        )
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _next(self):
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._from], [], [], _SECONDS)
            assert ready, "Chromium does not answer"
            part = os.read(self._from, 1 << 16)
            assert part, "Chromium has ended"
            self._received += part
        message, _, self._received = self._received.partition(b"\0")
        answer = json.loads(message)
        if answer.get("method") == "Log.entryAdded":
            self.complaints.append(answer["params"]["entry"]["text"])
        if answer.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(answer["params"]["exceptionDetails"]["exception"].get("description", ""))
        return answer
