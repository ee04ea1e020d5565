#!/usr/bin/env python3
"""`foretoken dashboard --topology T`: one page of a cluster of nodes. Every instance is there once, as its mirror's owner knows it; decisions are
those of the SCHEDULER's node; a node that dies is named, and the page lives on. In a browser too, where there is one."""
import json
import re
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

from tests.integration.dashboard import browser as browsers
from tests.integration.e2e.cluster import PROGRAM, Cluster

LIMIT = 120  # seconds, for what should take moments
NODES = [("router", ["scheduler"]), ("gpu-0", ["i-0", "i-1"]), ("gpu-1", ["i-2", "i-3"])]


class ClusterPageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(NODES, 4)
        cls.addClassCleanup(cls.cluster.close)
        for name, _ in NODES[1:]:
            cls.cluster.start(name, more=("--dashboard", "127.0.0.1:0"))
        cls.cluster.start("router", "rate=20", more=("--dashboard", "127.0.0.1:0"))
        cls.page = subprocess.Popen([PROGRAM, "dashboard", "--topology", cls.cluster.path, "--dashboard", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True)
        cls.addClassCleanup(cls.page.stderr.close)
        cls.addClassCleanup(cls.page.wait)
        cls.addClassCleanup(cls.page.kill)
        cls.url = next(found.group(1) for line in cls.page.stderr if (found := re.search(r"dashboard at (\S+)", line)))
        cls.until(lambda o: len(o["decisions"]) > 5 and all(i.get("running", 0) >= 0 and i["mirrored"] for i in o["instances"]), "a whole cluster")

    @classmethod
    def status(cls):
        try:
            with urllib.request.urlopen(cls.url + "status.json", timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as early:  # not every node was asked yet
            early.close()
            return None

    @classmethod
    def until(cls, condition, what):
        end = time.monotonic() + LIMIT
        while not ((seen := cls.status()) and seen["instances"] and condition(seen)):
            if time.monotonic() > end:
                raise AssertionError(f"never: {what}\n{json.dumps(seen)[:3000]}")
            time.sleep(0.1)
        return seen

    def test_1_it_shows_every_instance_once_and_what_the_scheduler_decides(self):
        seen = self.status()
        self.assertEqual(sorted(i["instance"] for i in seen["instances"]), ["i-0", "i-1", "i-2", "i-3"])
        self.assertEqual({i["instance"]: i["simulator_on"] for i in seen["instances"]}, {"i-0": "gpu-0", "i-1": "gpu-0", "i-2": "gpu-1", "i-3": "gpu-1"})
        self.assertTrue(all("epoch" in i and "age" in i for i in seen["instances"]))
        self.assertTrue(all(d["number"].startswith("router-") for d in seen["decisions"]))
        self.assertEqual([(n["node"], n["answers"]) for n in seen["nodes"]], [("router", True), ("gpu-0", True), ("gpu-1", True)])
        self.assertGreater(seen["window"]["arrivals_per_second"], 5)
        self.until(lambda o: o["totals"]["decided"] > seen["totals"]["decided"], "it is live")
        alone = self.cluster.status("router")["observed"]
        self.assertLessEqual(abs(alone["totals"]["decided"] - self.status()["totals"]["decided"]), 200)
        # What its node says of a decision, with its candidates.
        number = self.status()["decisions"][0]["number"]
        with urllib.request.urlopen(self.url + "decision.json?number=" + number, timeout=60) as answer:
            self.assertEqual(len(json.load(answer)["candidates"]), 4)
        # The headroom of a fleet whose mirrors are all elsewhere.
        self.until(lambda o: o["headroom"] is not None and o["headroom"]["instances_needed"] >= 1, "headroom")

    def test_2_metrics_are_the_nodes_own(self):
        with self.assertRaises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(self.url + "metrics", timeout=60)
        self.assertEqual(refused.exception.code, 404)
        refused.exception.close()

    @unittest.skipUnless(browsers.CHROMIUM, "no chromium here: `./foretoken test` installs it")
    def test_3_it_is_the_same_page(self):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            page = browsers.Browser(folder)
            self.addCleanup(page.close)
            page.open(self.url)
            page.wait("document.documentElement.dataset.observation > 2 && document.querySelectorAll('.decision').length > 2", LIMIT, "live decisions")
            self.assertEqual(page.value("[...document.querySelectorAll('.node .id')].map((n) => n.textContent)"), ["i-0", "i-1", "i-2", "i-3"])
            page.wait("document.getElementById('facts').textContent.includes('3 of 3')", LIMIT, "the nodes")
            self.assertNotIn("NaN", page.value("document.body.innerText"))
            self.assertEqual(page.failures, [])

    def test_4_a_node_that_dies_is_named_and_the_page_lives_on(self):
        self.cluster.processes["gpu-1"].process.kill()
        seen = self.until(lambda o: not o["nodes"][2]["answers"], "the dead node")
        self.assertTrue(seen["nodes"][2]["why"])
        self.until(lambda o: [i["reachable"] for i in o["instances"] if i["instance"] in ("i-2", "i-3")] == [False, False], "its instances are out")
        decided = self.status()["totals"]["decided"]
        self.until(lambda o: o["totals"]["decided"] > decided + 5, "it is live")
        self.cluster.start("gpu-1", more=("--dashboard", "127.0.0.1:0"))
        self.until(lambda o: o["nodes"][2]["answers"] and all(i["reachable"] for i in o["instances"]), "the node back")


if __name__ == "__main__":
    unittest.main()
