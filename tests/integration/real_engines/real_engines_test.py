#!/usr/bin/env python3
"""The gateway in front of two real llama-servers of different speed, asked by the official clients. Needs the engine that
`./foretoken test --real-engines` sets up (FORETOKEN_LLAMA names its folder); skipped with a message where it is not."""
import json
import os
import socket
import subprocess
import tempfile
import unittest
import urllib.request
from pathlib import Path

from integration.engines.llama import llama_engine
from tests.integration.gateway import rig

FOLDER = os.environ.get("FORETOKEN_LLAMA")
MODEL = "random"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def why_not():
    if not FOLDER:
        return os.environ.get("FORETOKEN_LLAMA_MISSING", "real engines are not set up: ./foretoken test --real-engines")
    return ""


@unittest.skipIf(why_not(), why_not())
class RealEnginesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.logs = tempfile.TemporaryDirectory()
        cls.servers = [llama_engine.Server(FOLDER, free_port(), law, name=MODEL, log=Path(cls.logs.name) / f"{i}.log")
                       for i, law in enumerate((llama_engine.FAST, llama_engine.SLOW))]
        for server in cls.servers:
            server.wait()
        cls.gateway = rig.Gateway([server.url for server in cls.servers], "--decision-headers", policy="min_e2e")

    @classmethod
    def tearDownClass(cls):
        cls.gateway.close()
        for server in cls.servers:
            server.close()
        cls.logs.cleanup()

    def busy_slots(self):
        busy = 0
        for server in self.servers:
            with urllib.request.urlopen(server.url + "/slots", timeout=10) as answer:
                busy += sum(slot["is_processing"] for slot in json.load(answer))
        return busy

    def run_client(self, *command):
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=240)
        lines = done.stdout.strip().splitlines()
        for line in lines:
            with self.subTest(case=line.split(":")[0]):
                self.assertTrue(line.startswith("pass "), line)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertGreaterEqual(len(lines), 10)
        rig.wait_until(lambda: self.busy_slots() == 0, what="idle engines: what clients left is cancelled")

    def test_the_official_javascript_client(self):
        clients = Path(FOLDER) / "clients"
        if not (clients / "node_modules" / "openai").exists():
            self.skipTest("the npm package openai could not be installed")
        self.run_client("node", Path(__file__).resolve().parent / "openai_client.mjs", clients, self.gateway.url, MODEL)

    def test_the_official_python_client(self):
        python = Path(FOLDER) / "python"
        if not (python / "ready").exists():
            self.skipTest("the Python package openai could not be installed")
        self.run_client(python / "bin" / "python", Path(__file__).resolve().parent / "openai_client.py", self.gateway.url, MODEL)

    def test_both_engines_are_used_and_named(self):
        seen = set()
        connections = []
        for i in range(12):
            connection = rig.Connection(self.gateway.port)
            self.addCleanup(connection.close)
            body = {"model": MODEL, "prompt": f"request {i} " * 20, "max_tokens": 20, "stream": True}
            connection.send(rig.request_bytes("POST", "/v1/completions", body))
            connections.append(connection)
        for connection in connections:
            answer = connection.answer()
            self.assertEqual((answer.status, answer.events()[-1]), (200, "[DONE]"))
            seen.add(answer.headers["x-foretoken-instance"])
        self.assertEqual(len(seen), 2, seen)

    def test_a_killed_server_costs_nothing_but_its_own_streams(self):
        port = free_port()
        third = llama_engine.Server(FOLDER, port, llama_engine.FAST, name=MODEL).wait()
        gateway = rig.Gateway([third.url, self.servers[0].url], policy="round_robin")
        try:
            for _ in range(4):
                self.assertEqual(rig.ask_chat(gateway.port, model=MODEL).status, 200)
            third.close()
            for _ in range(8):
                self.assertEqual(rig.ask_chat(gateway.port, model=MODEL).status, 200)
        finally:
            gateway.close()
            third.close()


if __name__ == "__main__":
    unittest.main()
