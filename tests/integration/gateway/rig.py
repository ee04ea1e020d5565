"""Fake engines and the gateway as real processes, and a client that keeps to absolute deadlines: what the gateway's end-to-end
tests are built of. Every wait has a limit; a limit is generous (the machine may be busy), what was measured is printed by report().
"""
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time

PROGRAM = os.path.abspath(os.environ.get("FORETOKEN_PROGRAM", "integration/cli/foretoken"))
MODEL = "fake-model"
LIMIT = 30.0  # seconds; for anything that should take milliseconds
PLAIN = "ASAN_OPTIONS" not in os.environ  # a sanitizer's memory is not the program's


def report(what, seconds, goal=""):
    """A measured time, for people: `bazel test --test_output=all` shows it."""
    print(f"[measured] {what}: {seconds * 1e3:.1f} ms{' (goal: ' + goal + ')' if goal else ''}", flush=True)


def wait_until(condition, limit=LIMIT, what="the condition", pause=0.005):
    """Seconds until `condition()` is true; what it returned is ignored but for its truth."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > limit:
            raise AssertionError(f"{what} did not come true within {limit:.0f} s")
        time.sleep(pause)
    return time.monotonic() - begun


class Process:
    """A child of ours that prints `listening on http://HOST:PORT`."""

    def __init__(self, *arguments):
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen([PROGRAM, *map(str, arguments)], stdout=subprocess.PIPE, stderr=self.errors, text=True)
        self.port = None
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.search(r"listening on https?://[\w.]+:(\d+)", line):
                self.port = int(found.group(1))
                return
        raise AssertionError(f"{' '.join(map(str, arguments))} ended with {self.process.wait()}: {self.error_text()[-2000:]}")

    def error_text(self):
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace")

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def send_signal(self, number):
        self.process.send_signal(number)

    def running(self):
        return self.process.poll() is None

    def wait(self, limit=LIMIT):
        return self.process.wait(timeout=limit)

    def close(self):
        if self.running():
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()

    def status_kb(self, key):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(rf"^{key}:\s+(\d+)", status.read(), re.MULTILINE).group(1))

    def rss_mb(self):
        return self.status_kb("VmRSS") / 1e3

    def peak_rss_mb(self):
        return self.status_kb("VmHWM") / 1e3

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


class Engine(Process):
    def __init__(self, port=0, model=MODEL, host="127.0.0.1", **options):
        self.options = options
        self.model = model
        self.host = host
        settings = [f"{key}={value}" for key, value in options.items()]
        super().__init__("load", "engine", "--host", host, "--port", port, "--model", model,
                         *(["--set", *settings] if settings else []))

    def set(self, **options):
        query = "&".join(f"{key}={value}" for key, value in options.items())
        answer = ask(self.port, "GET", f"/_ctl?{query}", host=self.host)
        assert answer.status == 200, answer.body

    def stats(self):
        return json.loads(ask(self.port, "GET", "/_stats", host=self.host).body)

    def reset(self):
        ask(self.port, "GET", "/_reset", host=self.host)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def restarted(self):
        """A new process on the same port."""
        self.close()
        return Engine(self.port, self.model, self.host, **self.options)


class Gateway(Process):
    def __init__(self, engines, *flags, policy="min_e2e"):
        urls = [engine if isinstance(engine, str) else engine.url for engine in engines]
        super().__init__("gateway", "--host", "127.0.0.1", "--port", 0, "--prometheus-port", 0, "--policy", policy, *flags,
                         "--worker-urls", *urls)

    def close(self):
        ended = self.process.poll()
        said = self.error_text()[-2000:] if ended not in (None, 0) else ""
        if not PLAIN and ended is None:  # it reports leaks at its end
            self.process.send_signal(signal.SIGTERM)
            ended = self.process.wait(timeout=LIMIT * 2)
            said = self.error_text()[-20_000:]
        super().close()
        if ended not in (None, 0) and not (ended == 1 and "had ended when the time to drain" in said):
            raise AssertionError(f"the gateway ended with {ended}: {said}")


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    def error(self):
        """The OpenAI error object."""
        return self.json()["error"]

    def events(self):
        """The data of each event of a stream."""
        return [line[6:] for line in self.body.decode().split("\n") if line.startswith("data: ")]


class Connection:
    """One client connection over a plain socket: whatever the server sends is seen as it is."""

    def __init__(self, port, limit=LIMIT, receive_buffer=None, host="127.0.0.1"):
        self.until = time.monotonic() + limit
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(limit)
        self.socket.connect((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self._left()
        self.socket.sendall(data)

    def _left(self):
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("no answer in time")
        self.socket.settimeout(left)

    def more(self):
        """Reads once; False at the end."""
        self._left()
        data = self.socket.recv(1 << 16)
        self.buffer += data
        return bool(data)

    def _line(self):
        while b"\r\n" not in self.buffer:
            if not self.more():
                raise ConnectionError(f"closed within a line: {self.buffer[-200:]!r}")
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def head(self):
        """(status, {lower-case name: value}) of the next answer; 100 Continue is passed over."""
        while True:
            first = self._line()
            if not first.startswith(b"HTTP/1.1 "):
                raise ConnectionError(f"no HTTP: {first[:200]!r}")
            headers = {}
            while line := self._line():
                name, _, value = line.partition(b":")
                headers[name.decode().lower()] = value.decode().strip()
            status = int(first.split()[1])
            if status != 100:
                return status, headers

    def pieces(self, headers):
        """The body in the pieces in which it came: chunks, or what one read gave."""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self._line().split(b";")[0], 16):
                while len(self.buffer) < size + 2:
                    if not self.more():
                        raise ConnectionError("closed within a chunk")
                piece, self.buffer = self.buffer[:size], self.buffer[size + 2:]
                yield piece
            while self._line():
                pass
        elif "content-length" in headers:
            left = int(headers["content-length"])
            while left:
                if not self.buffer and not self.more():
                    raise ConnectionError("closed within the body")
                piece, self.buffer = self.buffer[:left], self.buffer[left:]
                left -= len(piece)
                yield piece
        else:
            while self.buffer or self.more():
                piece, self.buffer = self.buffer, b""
                yield piece

    def answer(self):
        status, headers = self.head()
        return Answer(status, headers, b"".join(self.pieces(headers)))

    def closed_by_peer(self):
        """True once the other side has closed (or reset) it; reads what is still there."""
        try:
            while self.more():
                pass
        except ConnectionError:
            pass
        except TimeoutError:
            return False
        return True


def request_bytes(method, path, body=b"", headers=()):
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: gateway"]
    lines += [f"{name}: {value}" for name, value in dict(headers).items()]
    if body or method == "POST":
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def ask(port, method, path, body=b"", headers=(), limit=LIMIT, host="127.0.0.1"):
    """One request on a connection of its own."""
    with Connection(port, limit, host=host) as connection:
        connection.send(request_bytes(method, path, body, headers))
        return connection.answer()


def chat(stream=False, tokens=4, text="hello", **more):
    return {"model": MODEL, "stream": stream, "max_tokens": tokens, "messages": [{"role": "user", "content": text}], **more}


def ask_chat(port, headers=(), limit=LIMIT, **body):
    return ask(port, "POST", "/v1/chat/completions", chat(**body), headers, limit)


def metric(port, name, **labels):
    """The sum of a metric's samples that have these labels; None if there is no sample."""
    text = ask(port, "GET", "/metrics").body.decode()
    values = [float(value) for found, label_text, value in re.findall(r"^(\w[\w:]*)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE)
              if found == name and all(f'{k}="{v}"' in label_text for k, v in labels.items())]
    return sum(values) if values else None
