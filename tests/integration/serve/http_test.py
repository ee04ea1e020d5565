#!/usr/bin/env python3
"""`serve` over HTTP: emulated instances as OpenAI servers, the gateway in front of them, and the curl line that works as it is printed."""
import json
import re
import shlex
import signal
import socket
import subprocess
import unittest

from tests.integration.gateway import rig

TOPOLOGY = "configs/topologies/small.yaml"


class ServeHttpTest(unittest.TestCase):
    def serve(self, *arguments):
        """The process, its instances' ports by name, and the lines up to the curl line."""
        process = subprocess.Popen([rig.PROGRAM, "serve", "--topology", TOPOLOGY, *arguments], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                ports = {m[1]: int(m[2]) for one in lines if (m := re.match(r"  (\S+) at http://127.0.0.1:(\d+)$", one))}
                return process, ports, lines
        self.fail(process.stderr.read())

    def ask(self, port, **body):
        return rig.ask(port, "POST", "/v1/chat/completions", rig.chat(model="llama-3.1-8b", **body))

    def test_every_instance_is_an_openai_server(self):
        process, ports, lines = self.serve("--openai")
        self.assertEqual(sorted(ports), ["h100-0", "h100-1"])
        self.assertFalse([line for line in lines if "gateway" in line])
        for name, port in ports.items():
            answer = self.ask(port, stream=True, tokens=5, stream_options={"include_usage": True})
            self.assertEqual((answer.status, answer.headers["x-backend-id"]), (200, name))
            events = answer.events()
            self.assertEqual(events[-1], "[DONE]")
            self.assertEqual(json.loads(events[-2])["usage"]["completion_tokens"], 5)
            self.assertEqual(len([e for e in events[:-1] if '"content":"tok ' in e]), 5)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=rig.LIMIT), 0)

    def test_what_is_for_operators_is_at_the_admin_address(self):
        with socket.socket() as free:
            free.bind(("127.0.0.2", 0))
            admin = free.getsockname()[1]
        process, _, lines = self.serve("--set", "gateway.listen=127.0.0.1:0", "--set", f"gateway.admin=127.0.0.2:{admin}")
        self.assertEqual(rig.ask(admin, "GET", "/workers", host="127.0.0.2").json()["total"], 2)
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", admin), timeout=rig.LIMIT).close()
        self.assertFalse([line for line in lines if "dashboard" in line])
        process.send_signal(signal.SIGTERM)
        logged = process.stderr.read()  # the page's address is in the log, as in every other way to serve
        self.assertRegex(logged, r"dashboard at http://127\.0\.0\.2:\d+/")

    def test_the_gateway_of_the_topology_stands_in_front(self):
        process, ports, lines = self.serve("--set", "gateway.listen=127.0.0.1:0")
        [port] = [int(m[1]) for line in lines if (m := re.search(r"listening on http://127.0.0.1:(\d+)", line))]
        seen = set()
        for _ in range(8):
            answer = self.ask(port, tokens=2)
            self.assertEqual(answer.status, 200, answer.body)
            seen.add(answer.headers["x-backend-id"])
        self.assertLessEqual(seen, set(ports))
        [curl] = [line for line in lines if line.startswith("  curl ")]
        try:
            said = subprocess.run(shlex.split(curl), capture_output=True, text=True, timeout=rig.LIMIT)
        except FileNotFoundError:
            self.skipTest("no curl here")
        self.assertIn("data: [DONE]", said.stdout)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(timeout=rig.LIMIT), 0)

    def test_an_address_in_use_is_one_message(self):
        engine = rig.Engine()
        self.addCleanup(engine.close)
        wrong = subprocess.run([rig.PROGRAM, "serve", "--topology", TOPOLOGY, "--openai", "--openai-port", str(engine.port)],
                               capture_output=True, text=True, timeout=rig.LIMIT)
        self.assertEqual((wrong.returncode, wrong.stderr.count("\n")), (2, 1), wrong.stderr)
        self.assertIn(str(engine.port), wrong.stderr)


if __name__ == "__main__":
    unittest.main()
