"""A headless Chromium that a test drives: the DevTools protocol over a pipe (no ports, no packages)."""
import base64
import json
import os
import queue
import shutil
import subprocess
import threading
import time

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One browser with one page. Every wait has a limit; the page's errors are kept in `failures`."""

    def __init__(self, folder, width=1280, height=900):
        to_browser, ours_out = os.pipe()
        ours_in, from_browser = os.pipe()
        os.set_inheritable(to_browser, True)
        os.set_inheritable(from_browser, True)
        # Chromium reads commands from descriptor 3 and writes answers to 4.
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                   "--force-color-profile=srgb", "--remote-debugging-pipe", "--user-data-dir=" + os.path.join(folder, "profile"),
                   "about:blank"]
        shell = 'exec "$@" 3<&%d 4>&%d' % (to_browser, from_browser)
        with open(os.path.join(folder, "chromium.log"), "wb") as log:
            self.process = subprocess.Popen(["bash", "-c", shell, "bash", *command], stdout=log, stderr=log, env=dict(os.environ, HOME=folder),
                                            pass_fds=(to_browser, from_browser))
        os.close(to_browser)
        os.close(from_browser)
        self.out = os.fdopen(ours_out, "wb", buffering=0)
        self.source = os.fdopen(ours_in, "rb", buffering=0)
        self.answers = queue.Queue()
        self.failures = []
        self.next = 1
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")
        self.resize(width, height)

    def _listen(self):
        pending = b""
        while True:
            chunk = self.source.read(1 << 16)
            if not chunk:
                self.answers.put(None)
                return
            *messages, pending = (pending + chunk).split(b"\0")
            for text in messages:
                message = json.loads(text)
                if "id" in message:
                    self.answers.put(message)
                elif message["method"] == "Runtime.exceptionThrown":
                    self.failures.append(json.dumps(message["params"]["exceptionDetails"])[:1000])
                elif message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                    self.failures.append(json.dumps(message["params"]["entry"])[:500])

    def call(self, method, **parameters):
        number, self.next = self.next, self.next + 1
        message = {"id": number, "method": method, "params": parameters}
        if hasattr(self, "session"):
            message["sessionId"] = self.session
        self.out.write(json.dumps(message).encode() + b"\0")
        until = time.monotonic() + 120
        while True:
            answer = self.answers.get(timeout=max(0.1, until - time.monotonic()))
            if answer is None:
                raise RuntimeError("the browser has ended")
            if answer["id"] == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def resize(self, width, height, mobile=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def colours(self, scheme):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, url):
        self.call("Page.navigate", url=url)

    def value(self, script):
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"])[:2000])
        return result["result"].get("value")

    def wait(self, script, seconds=60, what=""):
        until = time.monotonic() + seconds
        while True:
            try:
                found = self.value(script)
            except RuntimeError:
                found = None  # the page is being loaded
            if found:
                return found
            if time.monotonic() > until:
                raise TimeoutError(f"{what or script}: not within {seconds} s")
            time.sleep(0.05)

    def screenshot(self, path, clip=None, quality=None):
        """Of the whole page, or of `clip`; PNG, or WebP of that quality."""
        if clip is None:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        kind = {"format": "png"} if quality is None else {"format": "webp", "quality": quality}
        data = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True, **kind)["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))

    def press(self, key):
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key],
                      text="\r" if key == "Enter" and kind == "keyDown" else "")

    def close(self):
        try:
            self.call("Browser.close")
        except (RuntimeError, OSError, queue.Empty):
            pass
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)
        self.listener.join(20)
        self.out.close()
        self.source.close()
