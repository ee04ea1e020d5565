#!/usr/bin/env python3
"""The dashboard's port and that of /metrics: ten thousand hostile requests at each, pages that stop reading, requests from elsewhere, and nothing of a prompt anywhere."""
import json
import os
import random
import re
import signal
import socket
import subprocess
import time
import unittest
import urllib.error
import urllib.request

from tests.integration.gateway import rig

SEED = int(os.environ.get("FORETOKEN_SEED", "1"))


class Served:
    def __init__(self, *arguments):
        self.process = subprocess.Popen([rig.PROGRAM, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if found := re.search(r"dashboard at http://127.0.0.1:(\d+)/", line):
                self.port = int(found.group(1))
                return
        raise AssertionError("serve ended: " + str(self.process.wait()))

    def get(self, path, data=None, **headers):
        asked = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data, headers=headers)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.load(answer)

    def code(self, path, data=None, **headers):
        try:
            self.get(path, data, **headers)
            return 200
        except urllib.error.HTTPError as answer:
            answer.close()
            return answer.code

    def rss_mb(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1)) / 1024

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()


def hostile(port, rng):
    """Ten thousand of them, one after the other; returns the connections that are held open, neither read nor closed."""
    held = []
    for k in range(10_000):
        one = socket.create_connection(("127.0.0.1", port), timeout=60)
        try:
            one.sendall(garbage(rng))
        except OSError:
            pass  # it had seen enough
        if k % 100 == 0:
            held.append(one)
            continue
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        one.close()
    return held


def garbage(rng):
    """One hostile request's bytes."""
    word = lambda n: bytes(rng.choice(b"abcXYZ/%.?&=\x00\xff\"'{}[]\\ ") for _ in range(n))
    kind = rng.randrange(12)
    if kind == 0:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(1, 400)))
    if kind == 1:
        return b"GET /" + word(rng.randrange(60)) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
    if kind == 2:
        return b"GET /" + rng.choice([b"../../etc/passwd", b"%2e%2e/%2e%2e", b"//", b"status.json?source=" + b"x" * 3000]) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
    if kind == 3:
        return b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * rng.randrange(9000, 30000) + b"\r\n\r\n"
    if kind == 4:
        return b"POST /faults HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % rng.choice([0, 7, 4000, 10**9, 2**63])
    if kind == 5:
        body = rng.choice([b"[" * 2000, b"{" + word(50), b'{"instance":"*","delay":1e308}', b'{"instance":"*","drop":NaN}', b'{"instance":"' + b"n" * 2000 + b'","kill":1}', b'{"delay":[]}'])
        return b"POST /faults HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    if kind == 6:
        return b"POST /faults HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + rng.choice([b"ffffffffffffffff\r\n", b"zz\r\n", b"1\r\nab", b"5\r\nhello\r\n0\r\n\r\n"])
    if kind == 7:
        return rng.choice([b"DELETE", b"CONNECT", b"TRACE", b"OPTIONS", b"PUT"]) + b" / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    if kind == 8:
        return b"GET / HTTP/1.1\r\nHost: " + rng.choice([b"evil.example", b"127.0.0.1.evil.example", b"", b"[::1", b":" * 50]) + b"\r\n\r\n"
    if kind == 9:
        return b"GET /status.json HTTP/1.1\r\nHost: localhost\r\n" * 3 + b"\r\n\r\n"
    if kind == 10:
        return b"GET /metrics" + rng.choice([b"", b"?", b"?source=", b"?source=" + word(200), b"/../metrics", b"%00"]) + b" HTTP/1.1\r\nHost: localhost\r\n" + rng.choice([b"", b"Accept-Encoding: " + b"gzip," * 500 + b"\r\n", b"Range: bytes=0-1\r\n"]) + b"\r\n"
    return b"GET /events HTTP/" + rng.choice([b"9.9", b"1.1", b"0.9"]) + b"\r\nHost: localhost\r\nAccept: " + word(20).replace(b"\n", b"") + b"\r\n\r\n"


class ServerTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.served = Served("serve", "--topology", "configs/topologies/small.yaml", "--load", "rate=20", "--fault-switch", "--dashboard", "127.0.0.1:0")
        rig.wait_until(lambda: cls.served.code("/status.json") == 200 and cls.served.get("/status.json")["decisions"], what="a first decision", pause=0.1)

    @classmethod
    def tearDownClass(cls):
        cls.served.close()

    def assert_it_goes_on(self):
        before = self.served.get("/status.json")
        rig.wait_until(lambda: (now := self.served.get("/status.json"))["observation"] > before["observation"]
                       and now["totals"]["decided"] > before["totals"]["decided"], what="another observation with more decisions", pause=0.1)

    def test_ten_thousand_hostile_requests_change_nothing(self):
        print(f"seed {SEED}")
        rng = random.Random(SEED)
        refused = self.served.get("/status.json")["watch"]["refused"]
        held = hostile(self.served.port, rng)
        self.assert_it_goes_on()
        self.assertGreater(self.served.get("/status.json")["watch"]["refused"], refused)
        for one in held:
            one.close()
        self.assertIsNone(self.served.process.poll())
        self.assertLess(self.served.rss_mb(), 400)
        faults = [i for i in self.served.get("/status.json")["instances"] if "faults" in i]
        self.assertEqual(faults, [], "a hostile order was obeyed")

    def test_pages_that_stop_reading_hold_back_nobody(self):
        stalled = []
        for _ in range(20):
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.connect(("127.0.0.1", self.served.port))
            one.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            stalled.append(one)
        begun = self.served.rss_mb()
        rig.wait_until(lambda: self.served.get("/status.json")["watch"]["frames_skipped"] > 100, limit=120, what="frames left out", pause=0.2)
        self.assert_it_goes_on()
        self.assertLess(self.served.rss_mb() - begun, 100, "what pages did not read was kept")
        with urllib.request.urlopen(f"http://127.0.0.1:{self.served.port}/events", timeout=60) as reader:
            frames = 0
            while frames < 4:
                frames += reader.readline().startswith(b"event: observation")
        for one in stalled:
            one.close()
        rig.wait_until(lambda: self.served.get("/status.json")["watch"]["pages"] == 0, what="the pages gone", pause=0.1)

    def test_other_sites_pages_can_neither_read_nor_order(self):
        order = json.dumps({"instance": "*", "drop": 1}).encode()
        mine = f"http://127.0.0.1:{self.served.port}"
        self.assertEqual(self.served.code("/status.json", Host="rebound.example"), 421)
        self.assertEqual(self.served.code("/faults", order, **{"Content-Type": "text/plain"}), 415)
        self.assertEqual(self.served.code("/faults", order, **{"Content-Type": "application/json", "Origin": "http://evil.example"}), 403)
        heal = json.dumps({"instance": "*", "heal": True}).encode()
        self.assertEqual(self.served.code("/faults", heal, **{"Content-Type": "application/json", "Origin": mine}), 200)
        for wrong in ({"instance": "*", "drop": 2}, {"instance": "h100-9", "drop": .1}, {"instance": "*"}, {"drop": .1}, {"instance": "*", "boom": 1}):
            self.assertEqual(self.served.code("/faults", json.dumps(wrong).encode(), **{"Content-Type": "application/json"}), 400, wrong)

    def test_a_decision_is_told_with_all_its_candidates(self):
        status = self.served.get("/status.json")
        number = status["decisions"][0]["number"]
        told = self.served.get("/decision.json?number=" + number)
        self.assertEqual(len(told["candidates"]), 2)
        self.assertEqual(told["number"], number)
        self.assertEqual(self.served.code("/decision.json?number=9-9"), 404)


class MetricsPortTest(unittest.TestCase):
    """The gateway's, which is one thread with its clients' requests."""

    def test_ten_thousand_hostile_requests_change_nothing(self):
        print(f"seed {SEED}")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        engine = rig.Engine()
        self.addCleanup(engine.close)
        gateway = rig.Process("gateway", "--worker-urls", engine.url, "--port", 0, "--prometheus-port", port)
        self.addCleanup(gateway.close)
        rig.wait_until(lambda: rig.ask_chat(gateway.port).status == 200, what="the gateway serves", pause=0.1)
        scrape = lambda: rig.ask(port, "GET", "/metrics")
        held = hostile(port, random.Random(SEED))
        for one in held[20:]:
            one.close()
        rig.wait_until(lambda: scrape().status == 200, what="a scrape", pause=0.1)
        self.assertEqual(rig.ask_chat(gateway.port).status, 200)
        text = scrape().body.decode()
        self.assertIn("foretoken:requests_total", text)
        self.assertNotIn("\xff", text)
        self.assertTrue(gateway.running())
        if rig.PLAIN:
            self.assertLess(gateway.rss_mb(), 400)
        for one in held[:20]:
            one.close()


class NoPromptTest(unittest.TestCase):
    def test_nothing_of_a_prompt_or_an_answer_is_shown_or_logged(self):
        engine = rig.Engine()
        self.addCleanup(engine.close)
        # Every request is slow by these targets, so that examples of them are logged.
        gateway = subprocess.Popen([rig.PROGRAM, "gateway", "--worker-urls", engine.url, "--port", "0", "--prometheus-port", "0", "--dashboard", "127.0.0.1:0",
                                    "--log-level", "debug", "--log-format", "json", "--slo-ttft-ms", "0.001"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(gateway.stdout.close)
        self.addCleanup(gateway.stderr.close)
        self.addCleanup(gateway.wait)
        self.addCleanup(gateway.kill)
        ports = {}
        while len(ports) < 2:
            line = gateway.stdout.readline()
            self.assertTrue(line, "the gateway ended")
            if found := re.search(r"(listening on|dashboard:) http://127.0.0.1:(\d+)", line):
                ports[found[1]] = int(found[2])
        secret = "xylophone-9731-quartz"
        for _ in range(5):
            self.assertEqual(rig.ask_chat(ports["listening on"], stream=True, text=secret).status, 200)
        for wrong in (b'{"model": "' + rig.MODEL.encode() + b'", "messages": "' + secret.encode(), json.dumps({"model": secret, "messages": [{"role": "user", "content": secret}]}).encode()):
            self.assertGreaterEqual(rig.ask(ports["listening on"], "POST", "/v1/chat/completions", wrong).status, 400)

        def seen():
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{ports['dashboard:']}/status.json", timeout=60) as answer:
                    return answer.read().decode()
            except urllib.error.HTTPError as early:  # nothing has been observed yet
                early.close()
                return "{}"

        rig.wait_until(lambda: json.loads(seen()).get("totals", {}).get("finished") == 5, what="the requests on the dashboard", pause=0.1)
        shown = seen()
        number = json.loads(shown)["decisions"][0]["number"]
        for path in ("/metrics", "/decision.json?number=" + number, "/sources.json"):
            with urllib.request.urlopen(f"http://127.0.0.1:{ports['dashboard:']}{path}", timeout=60) as answer:
                shown += answer.read().decode()
        shown += rig.ask(ports["listening on"], "GET", "/metrics").body.decode()
        shown += rig.ask(ports["listening on"], "GET", "/workers").body.decode()
        self.assertEqual(len(json.loads(seen())["decisions"]), 5)
        for word in (secret, "xylophone", "content", "tok "):
            self.assertNotIn(word, shown)
        gateway.send_signal(signal.SIGTERM)
        self.assertEqual(gateway.wait(60), 0)
        logged = gateway.stderr.read()
        self.assertIn('"slow_request"', logged)
        for word in (secret, "xylophone", "tok "):
            self.assertNotIn(word, logged)


if __name__ == "__main__":
    unittest.main()
