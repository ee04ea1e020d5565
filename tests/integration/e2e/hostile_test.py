#!/usr/bin/env python3
"""A million hostile bytes at every port that the program opens: noise, forged lengths, cut and mutated valid requests, the wrong TLS, and
connections that say nothing. No process ends, memory stays bounded, and service goes on.

FORETOKEN_HOSTILE_BYTES and FORETOKEN_HOSTILE_CONNECTIONS: at least so many at every port (a million connections take some five minutes each)."""
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(os.path.realpath(__file__)), "../../..")))
from tests.integration.e2e.cluster import PROGRAM, Cluster, free_ports  # noqa: E402
from tests.integration.gateway import rig  # noqa: E402

BYTES = int(os.environ.get("FORETOKEN_HOSTILE_BYTES", "1000000"))
CONNECTIONS = int(os.environ.get("FORETOKEN_HOSTILE_CONNECTIONS", "1000"))
SEED = int(os.environ.get("FORETOKEN_SEED", "8"))
MORE_MB = 64 if rig.PLAIN else 1024
CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(32)) + b"\x20" + bytes(32) + bytes.fromhex("0002130101000079")


def frame(rng):
    """What might begin as a frame between nodes: a segment table that lies, or tells the truth about noise."""
    segments = rng.choice([0, 0, 1, 63, 64, 2**32 - 1, rng.randrange(2**32)])
    words = [rng.choice([0, 1, 40, 2**17, 2**31, 2**32 - 1, rng.randrange(200)]) for _ in range(min(segments + 1, 80))]
    head = b"".join(v.to_bytes(4, "little") for v in [segments, *words])
    return head + rng.randbytes(rng.randrange(600))


def request(rng):
    """A request as a client might send it, or nearly."""
    body = rng.choice([b'{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":3}', b'{"model":' + b"[" * rng.randrange(3000),
                       b'{"model":"m","prompt":"' + b"\\u0000" * 50 + b'"}', rng.randbytes(rng.randrange(2000)), b""])
    path = rng.choice(["/v1/chat/completions", "/v1/completions", "/workers", "/metrics", "/../../etc/passwd", "/" + "a" * rng.randrange(9000),
                       "/workers/%00", "/v1/models?x=" + "%ff" * 20, "*", "http://[::"])
    length = rng.choice([str(len(body)), "-1", "99999999999999999999", "0x10", str(len(body) + 50), "1, 2"])
    fields = rng.choice([f"Content-Length: {length}\r\n", "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
                         "".join(f"X-{k}: {'y' * rng.randrange(90)}\r\n" for k in range(rng.randrange(300))), "Host\r\n", ": \r\n", "\x00: \x01\r\n"])
    method = rng.choice(["GET", "POST", "DELETE", "PUT", "OPTIONS", "CONNECT", "PRI", "G\x00T"])
    if "chunked" in fields:
        body = rng.choice([b"5\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffff\r\n" + body, b"-1\r\n", b"1;" + b"e" * 2000 + b"\r\nx\r\n"])
    return f"{method} {path} HTTP/{rng.choice(['1.1', '1.0', '2.0', '9'])}\r\nHost: x\r\n{fields}\r\n".encode("latin-1") + body


def attack(rng, valid):
    data = rng.choice([valid, valid, valid, lambda r: r.randbytes(r.randrange(800)), lambda _: CLIENT_HELLO])(rng)
    if data and rng.random() < 0.4:
        data = bytearray(data)
        for _ in range(rng.randrange(1, 5)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data[: rng.randrange(1, len(data) + 1)]) if data and rng.random() < 0.3 else bytes(data)


def besiege(port, rng, valid, context=None):
    """CONNECTIONS hostile ones and more, until BYTES have gone out; returns how many. Some are left open and silent."""
    sent, count, left = 0, 0, []
    while sent < BYTES or count < CONNECTIONS:
        count += 1
        try:
            # An address has 28,000 ports to dial from, each used again after a minute.
            source = (f"127.0.{1 + count // 20000 % 250}.1", 0)
            s = socket.create_connection(("127.0.0.1", port), timeout=5, source_address=source)
        except OSError:
            continue
        s.settimeout(2)
        try:
            if context is not None and rng.random() < 0.2:
                s = context.wrap_socket(s, server_hostname=None)
            data = attack(rng, valid)
            s.sendall(data)
            sent += len(data)
            if rng.random() < 0.1:
                s.settimeout(0.02)
                s.recv(65536)
        except OSError:
            pass
        if rng.random() < 0.02 and len(left) < 40:
            left.append(s)
        else:
            s.close()
    for s in left:
        s.close()
    return count


def rss_mb(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"^VmRSS:\s+(\d+)", status.read(), re.MULTILINE).group(1)) / 1e3


class HostileTest(unittest.TestCase):
    def siege(self, what, process, port, valid, context=None):
        rng = random.Random(SEED)
        before = rss_mb(process.pid)
        count = besiege(port, rng, valid, context)
        self.assertIsNone(process.poll(), f"{what} ended under attack, seed {SEED}")
        grown = rss_mb(process.pid) - before
        print(f"[measured] {what}: {count} connections, {grown:.1f} MB more, seed {SEED}", flush=True)
        self.assertLess(grown, MORE_MB, f"{what}, seed {SEED}")

    def nodes(self, tls=None, context=None):
        layout = [("router", ["scheduler"]), ("gpu-0", ["i-0", "i-1"])]
        with Cluster(layout, 2, tls=tls) as cluster:
            cluster.start("gpu-0")
            router = cluster.start("router", "rate=10,requests=20000", ("--drain", "20"))
            router.wait_line("connected to node gpu-0")
            for node in ("router", "gpu-0"):
                self.siege(f"node port{' under TLS' if tls else ''} of {node}", cluster.processes[node].process, cluster.ports[node], frame,
                           context)
            self.assertTrue(cluster.status("gpu-0")["peers"][0]["connected"])  # commands are answered too
            router.signal(signal.SIGTERM)
            r = cluster.result("router")
            self.assertEqual((r["lost"], r["failed"], r["rejected"], r["duplicated"]), (0, 0, 0, 0))
            self.assertGreater(r["completed"], 0)

    def test_node_ports(self):
        self.nodes()

    def test_node_ports_under_tls(self):
        with tempfile.TemporaryDirectory() as folder:
            try:
                self.certificates(folder, "ca", ("router", "gpu-0"))
                os.mkdir(f"{folder}/foreign")
                self.certificates(f"{folder}/foreign", "ca", ("gpu-0",))
            except FileNotFoundError:
                self.skipTest("no `openssl` to make certificates with")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the name of a node, by another authority
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.load_cert_chain(f"{folder}/foreign/gpu-0.pem", f"{folder}/foreign/gpu-0.key")
            self.nodes(folder, context)

    @staticmethod
    def certificates(folder, authority, names):
        def openssl(*arguments):
            subprocess.run(["openssl", *arguments], check=True, capture_output=True)

        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
        openssl("req", "-x509", *key, "-subj", f"/CN={authority}", "-keyout", f"{folder}/ca.key", "-out", f"{folder}/ca.pem")
        for name in names:
            openssl("req", "-x509", *key, "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-CA", f"{folder}/ca.pem",
                    "-CAkey", f"{folder}/ca.key", "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem")

    def test_ports_of_serve(self):
        """The gateway, the emulated OpenAI servers behind it, and the dashboard."""
        topology = "configs/topologies/small.yaml"
        log = tempfile.NamedTemporaryFile()
        self.addCleanup(log.close)
        process = subprocess.Popen([PROGRAM, "serve", "--topology", topology, "--set", "gateway.listen=127.0.0.1:0", "--dashboard", "127.0.0.1:0"],
                                   stdout=subprocess.PIPE, stderr=log, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        ports = {}
        for line in process.stdout:
            if m := re.match(r"  (\S+) at http://127.0.0.1:(\d+)$", line):
                ports[m[1]] = int(m[2])
            elif m := re.search(r"listening on http://127.0.0.1:(\d+)", line):
                ports["gateway"] = int(m[1])
            if "Ctrl-C" in line:
                break

        def dashboard():  # says where it is on the log
            with open(log.name, encoding="utf-8") as text:  # of its own position
                if m := re.search(r"dashboard at http://127.0.0.1:(\d+)", text.read()):
                    ports["dashboard"] = int(m[1])
            return "dashboard" in ports

        until = time.monotonic() + 30
        while not dashboard() and time.monotonic() < until:
            time.sleep(0.05)
        self.assertLessEqual({"gateway", "dashboard", "h100-0"}, set(ports), ports)
        for name in ("gateway", "dashboard", "h100-0"):
            self.siege(f"port of {name}", process, ports[name], request)
        answer = rig.ask(ports["gateway"], "POST", "/v1/chat/completions", rig.chat(model="llama-3.1-8b", tokens=2))
        self.assertEqual(answer.status, 200, answer.body)
        with urllib.request.urlopen(f"http://127.0.0.1:{ports['dashboard']}/", timeout=30) as page:  # it looks at the Host
            self.assertEqual(page.status, 200)

    def test_admin_and_prometheus_ports_of_a_gateway(self):
        engine = rig.Engine()
        self.addCleanup(engine.close)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            admin = free.getsockname()[1]
        gateway = rig.Gateway([engine], "--admin-port", admin)
        self.addCleanup(gateway.close)
        self.siege("admin port", gateway.process, admin, request)
        self.assertEqual(rig.ask(admin, "GET", "/workers").status, 200)
        self.assertEqual(rig.ask(gateway.port, "POST", "/v1/chat/completions", rig.chat(tokens=2)).status, 200)

    def test_gateway_and_dashboard_of_a_cluster(self):
        layout = [("front", ["gateway"]), ("router", ["scheduler"]), ("gpu-0", ["i-0", "i-1"])]
        gateway, dashboard = free_ports(2)
        with Cluster(layout, 2, gateway=gateway) as cluster:
            cluster.start("gpu-0")
            cluster.start("router").wait_line("mirrors|connected to node gpu-0")
            front = cluster.start("front", more=("--dashboard", f"127.0.0.1:{dashboard}"))
            front.wait_line("gateway at http")
            front.wait_line("connected to node router")
            for name, port in (("gateway of a cluster", gateway), ("dashboard of a node", dashboard)):
                self.siege(name, front.process, port, request)
            answer = rig.ask(gateway, "POST", "/v1/chat/completions", rig.chat(model="m", tokens=2))
            self.assertEqual(answer.status, 200, answer.body)
            with urllib.request.urlopen(f"http://127.0.0.1:{dashboard}/metrics", timeout=30) as page:
                self.assertEqual(page.status, 200)

    def test_port_of_a_fake_engine(self):
        engine = rig.Engine()
        self.addCleanup(engine.close)
        self.siege("port of a fake engine", engine.process, engine.port, request)
        self.assertTrue(engine.running())
        self.assertEqual(rig.ask(engine.port, "GET", "/v1/models").status, 200)


if __name__ == "__main__":
    begun = time.monotonic()
    ended = unittest.main(verbosity=2, exit=False)
    print(f"{time.monotonic() - begun:.0f} s")
    sys.exit(not ended.result.wasSuccessful())
