"""Where records go: numbered 0, 1, 2, ... within an epoch, through a bounded queue, from a thread of its own.

Full queue: the record is dropped and its number with it, so that the receiver sees the gap and asks for a snapshot. A lost connection
is made again with growing pauses; what was on its way is a gap like any other.
"""
import json
import logging
import os
import queue
import socket
import ssl
import threading
import time

QUEUE = 65536  # records: minutes of steps
HEARTBEAT = 0.25  # seconds
_log = logging.getLogger("foretoken_vllm")
now = time.monotonic_ns


class Stream:
    def __init__(self, sink, hello, tracer):
        self.sink, self.tracer = sink, tracer
        self.queue = queue.Queue(QUEUE)
        self.lock = threading.Lock()  # a number and its place in the queue belong together
        self.next, self.dropped, self.wanted, self.closed = 0, 0, False, False
        self.put(hello)
        self.thread = threading.Thread(target=self._run, daemon=True, name="foretoken-sync")

    @staticmethod
    def open(address, hello, tracer):
        kind, _, rest = address.partition(":")
        if kind == "file":
            sink = FileSink(rest.replace("{pid}", str(os.getpid())))
        elif kind in ("unix", "tcp"):
            from foretoken_vllm.wire import Encoder

            sink = SocketSink(kind, rest, Encoder(hello))
        else:
            raise ValueError(f"FORETOKEN_SYNC={address}: must be unix:PATH, tcp:HOST:PORT or file:PATH")
        stream = Stream(sink, hello, tracer)
        sink.on_resync = stream.want_snapshot
        stream.thread.start()
        return stream

    def put(self, record, only_as=None):
        """only_as: to be the message of this number or none; the engine has gone on while it was made."""
        ends = len(record["ended"]) if record["type"] == "free" else 1
        with self.lock:
            if only_as not in (None, self.next):
                self.wanted = True
                return
            record["n"] = self.next
            if record["type"] == "free":
                record["numbers"] = list(range(self.next, self.next + ends))
            self.next += ends
            try:
                self.queue.put_nowait(record)
            except queue.Full:
                self.dropped += ends
                if self.dropped & (self.dropped - 1) == 0:  # the 1st, 2nd, 4th, ...
                    _log.warning("foretoken_vllm: %d records dropped, the receiver is too slow or away", self.dropped)

    def want_snapshot(self):
        self.wanted = True

    def snapshot_wanted(self):
        wanted, self.wanted = self.wanted, False
        return wanted

    def close(self):
        self.closed = True

    def _run(self):
        beat = 0.0
        while not self.closed:
            try:
                record = self.queue.get(timeout=HEARTBEAT / 2)
            except queue.Empty:
                record = None
            try:
                if record is not None:
                    self.sink.send(record)
                if time.monotonic() - beat >= HEARTBEAT:
                    beat = time.monotonic()
                    self._idle()
            except Exception as error:  # noqa: BLE001 - the server goes on
                self.tracer.disable(f"{type(error).__name__}: {error}")
        self.sink.close()

    def _idle(self):
        """A sign of life, and the answer to a resync that no step would give: an idle engine's snapshot is empty."""
        scheduler, tracer = self.tracer.scheduler, self.tracer
        if not self.sink.live:
            return self.sink.flush()
        oldest = tracer.pending[0][1]["t_sched1"] if tracer.pending else None
        self.put({"type": "heartbeat", "t": now(), "held": len(scheduler.requests), "since": oldest})
        if self.wanted and not scheduler.requests and not tracer.pending and not tracer.in_update:
            as_of = self.next
            tracer.answer_resync(lambda snapshot: self.put(snapshot, only_as=as_of))


class FileSink:
    """A recording: JSON Lines, as `foretoken mirror --steps` reads them."""

    live = False

    def __init__(self, path):
        self.file = open(path, "w", buffering=1 << 16)

    def send(self, record):
        self.file.write(json.dumps(record, separators=(",", ":")) + "\n")

    def flush(self):
        self.file.flush()

    def close(self):
        self.file.close()


class SocketSink:
    live = True
    on_resync = staticmethod(lambda: None)

    def __init__(self, kind, address, encoder):
        self.kind, self.address, self.encoder = kind, address, encoder
        self.socket, self.pause = None, 0.1

    def send(self, record):
        data = b"".join(self.encoder.frames(record, now()))
        while True:
            try:
                if self.socket is None:
                    self.socket = self._connect()
                    self.pause = 0.1
                    if record["type"] != "hello":  # whoever listens now may not have heard it
                        self.socket.sendall(b"".join(self.encoder.frames(self.encoder.hello, now())))
                return self.socket.sendall(data)
            except OSError as error:
                if self.pause == 0.1:
                    _log.warning("foretoken_vllm: %s: %s; trying again", self.address, error)
                self.close()
                time.sleep(self.pause)
                self.pause = min(2.0, self.pause * 2)

    def close(self):
        s, self.socket = self.socket, None
        if s is not None:
            s.close()

    def _connect(self):
        if self.kind == "unix":
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(5)
            s.connect(self.address)
        else:
            host, _, port = self.address.rpartition(":")
            s = socket.create_connection((host, int(port)), timeout=5)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            s = _tls(s, host)
        s.settimeout(None)
        threading.Thread(target=self._read, args=(s,), daemon=True, name="foretoken-resync").start()
        return s

    def _read(self, s):
        from foretoken_vllm.wire import asks_for_snapshot, frame_length

        held = b""
        try:
            while data := s.recv(4096):
                held += data
                while (length := frame_length(held)) is not None and len(held) >= length:
                    frame, held = held[:length], held[length:]
                    if asks_for_snapshot(frame):
                        self.on_resync()
        except (OSError, ValueError) as error:
            _log.info("foretoken_vllm: %s: %s", self.address, error)
        except Exception as error:  # noqa: BLE001 - an unreadable frame
            _log.warning("foretoken_vllm: %s: unreadable frame: %s", self.address, error)
            s.close()


def _tls(s, host):
    files = [os.environ.get(f"FORETOKEN_TLS_{name}") for name in ("CERTIFICATE", "KEY", "CA")]
    if not any(files):
        return s
    if not all(files):
        raise ValueError("FORETOKEN_TLS_CERTIFICATE, _KEY and _CA belong together")
    context = ssl.create_default_context(cafile=files[2])
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(files[0], files[1])
    return context.wrap_socket(s, server_hostname=host)
