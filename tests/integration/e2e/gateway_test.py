#!/usr/bin/env python3
"""The HTTP gateway in front of a cluster of nodes: answers come from the nodes' engines, token by token; both SCHEDULERs die in turn under load and
no client notices; what cannot be is refused as the gateway refuses it."""
import json
import subprocess
import time
import unittest
import urllib.error
import urllib.request

from tests.integration.e2e import cluster as e2e

NODES = [("front", ["gateway"]), ("sched-0", ["scheduler"]), ("sched-1", ["scheduler"]), ("gpu-0", ["i-0"]), ("gpu-1", ["i-1"])]


class GatewayTest(unittest.TestCase):
    def setUp(self):
        (self.port,) = e2e.free_ports(1)
        self.cluster = e2e.Cluster(NODES, 2, gateway=self.port)
        self.addCleanup(self.cluster.close)
        self.cluster.start_all()
        self.cluster.processes["front"].wait_line("gateway at http")
        for name in ("sched-0", "sched-1"):
            self.cluster.wait_status(name, lambda s: all(i["reachable"] and i["mirrored"] for i in s["instances"]))
            self.cluster.processes["front"].wait_line(f"connected to node {name}")

    def post(self, path, body):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
        return urllib.request.urlopen(request, timeout=60)

    def steps(self):
        return sum(e["steps"] for n in self.cluster.status().values() for e in n.get("engines", {}).values())

    def test_answers_come_from_the_nodes_engines_token_by_token(self):
        before = self.steps()
        seen = []
        with self.post("/v1/chat/completions", {"model": "m", "stream": True, "max_tokens": 40, "stream_options": {"include_usage": True},
                                                "messages": [{"role": "user", "content": "Hello"}]}) as answer:
            for line in answer:
                if line.startswith(b"data: {"):
                    seen.append((time.monotonic(), json.loads(line[6:])))
        tokens = [at for at, e in seen if e["choices"] and e["choices"][0]["delta"].get("content")]
        usage = [e["usage"] for _, e in seen if e.get("usage")][-1]
        self.assertEqual(len(tokens), usage["completion_tokens"])
        self.assertGreater(self.steps(), before)
        # Steps of 6 ms: not all at the end, however slow this machine is.
        if len(tokens) > 10:
            self.assertGreater(tokens[-1] - tokens[0], 0.006)
        with self.post("/v1/completions", {"model": "m", "max_tokens": 5, "prompt": "Hello"}) as answer:
            whole = json.load(answer)
        self.assertEqual(whole["choices"][0]["text"].count("tok "), whole["usage"]["completion_tokens"])

    def test_what_cannot_be_is_refused(self):
        with self.assertRaises(urllib.error.HTTPError) as raised:
            self.post("/v1/completions", {"model": "another", "max_tokens": 5, "prompt": "Hello"})
        self.assertEqual(raised.exception.code, 404)
        with self.assertRaises(urllib.error.HTTPError) as raised:
            self.post("/v1/completions", ["no object"])
        self.assertEqual(raised.exception.code, 400)

    def test_both_schedulers_die_in_turn_and_no_client_notices(self):
        load = subprocess.Popen([e2e.PROGRAM, "load", "open", "--url", f"http://127.0.0.1:{self.port}", "--rate", "15", "--seconds", "12",
                                 "--model", "m", "--tokens", "60", "--prompt-bytes", "256", "--timeout", "120"],
                                stdout=subprocess.PIPE, text=True)
        for name, other in (("sched-0", "sched-1"), ("sched-1", "sched-0")):
            self.cluster.wait_status("front", lambda s: s["placed_elsewhere"] > 0)
            self.cluster.wait_status(other, lambda s: all(i["reachable"] and i["mirrored"] for i in s["instances"]))
            self.cluster.processes[name].signal(9)
            self.cluster.processes[name].process.wait(20)
            killed = time.monotonic()
            self.cluster.start(name)
            self.cluster.processes["front"].wait_line(f"connected to node {name}", after=killed)
        out, _ = load.communicate(timeout=300)
        result = json.loads(out)
        self.assertEqual((result["ok"], result["errors"]), (result["offered"], {}), result)
        self.assertGreater(self.cluster.status("front")["counters"]["resubmitted"], 0)
        self.cluster.processes["front"].signal(15)
        self.assertEqual(self.cluster.processes["front"].process.wait(60), 0)


if __name__ == "__main__":
    unittest.main()
