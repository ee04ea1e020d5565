#!/usr/bin/env python3
"""The dashboard in a real browser without a screen, against a live cluster: its numbers are those of /status.json, a fault shows up and heals, it
works by keyboard and at three widths, and axe-core finds nothing in it. The screenshots are among the test's outputs.

Skipped with a message where there is no chromium (apt install chromium).
"""
import json
import os
import re
import subprocess
import tempfile
import time
import unittest
import urllib.request

from tests.integration.dashboard import browser as browsers

PROGRAM = os.path.abspath("integration/cli/foretoken")
OUT = os.environ.get("TEST_UNDECLARED_OUTPUTS_DIR", tempfile.gettempdir())
# Set up by `./foretoken test`; without it that one test says so.
AXE = os.environ.get("FORETOKEN_AXE", "")
LIVE = "document.documentElement.dataset.observation > 2 && document.querySelectorAll('.decision').length > 2"
# What the page shows, and of which observation, in one go.
SHOWN = """(() => {
  const v = (id) => Number(document.getElementById("v-" + id).dataset.value);
  return {observation: Number(document.documentElement.dataset.observation), rate: v("rate"), ttft: v("ttft"), e2e: v("e2e"), tokens: v("tokens"),
    decision: v("decision"), error: v("error"), lost: v("lost"),
    loads: [...document.querySelectorAll(".node")].map((n) => [n.querySelector(".id").textContent, n.querySelector(".meter output").textContent])};
})()"""


def expected(status):
    w, t = status["window"], status["totals"]
    load = lambda i: str(i["running"]) + (f" + {i['waiting']}" if i["waiting"] else "")
    return {"observation": status["observation"], "rate": w["arrivals_per_second"], "ttft": w["ttft"]["p50"], "e2e": w["e2e"]["p50"],
            "tokens": w["output_tokens_per_second"], "decision": w["decision"]["p99"], "error": w["ttft_error"]["p50"],
            "lost": t["shed"] + t["failed"] + t["rejected"], "loads": [[i["instance"], load(i)] for i in status["instances"]]}


class Served:
    def __init__(self, *arguments):
        self.process = subprocess.Popen([PROGRAM, "serve", "--dashboard", "127.0.0.1:0", *arguments], stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if found := re.search(r"dashboard at (\S+)", line):
                self.url = found.group(1)
                return
        raise AssertionError("serve ended: " + str(self.process.wait()))

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()


@unittest.skipUnless(browsers.CHROMIUM, "no chromium here: apt install chromium to run this test")
class PageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        cls.served = Served("--topology", "configs/topologies/mixed-gpu.yaml", "--load", "rate=12", "--fault-switch")
        cls.browser = browsers.Browser(cls.folder.name)
        cls.browser.open(cls.served.url)
        cls.browser.wait(LIVE, 120, "live decisions")

    @classmethod
    def tearDownClass(cls):
        cls.browser.close()
        cls.served.close()
        cls.folder.cleanup()

    def setUp(self):
        self.browser.resize(1280, 900)
        self.addCleanup(self.browser.value, "document.getElementById('f-heal').click()")

    def tearDown(self):
        self.assertEqual(self.browser.failures, [])

    def test_the_numbers_are_those_of_status_json(self):
        until = time.monotonic() + 120
        while True:  # the same observation in both
            status, shown = self.served.get("status.json"), self.browser.value(SHOWN)
            if status["observation"] == shown["observation"]:
                break
            self.assertLess(time.monotonic(), until, "never the same observation")
        self.assertEqual(shown, expected(status))
        self.assertGreater(shown["rate"], 0)
        told = subprocess.run([PROGRAM, "status", "--dashboard", self.served.url, "--json"], capture_output=True, text=True, timeout=60)
        self.assertEqual(told.returncode, 0, told.stderr)
        self.assertEqual(sorted(json.loads(told.stdout)), sorted(status))

    def test_a_fault_shows_up_and_heals(self):
        page = self.browser
        page.value("document.getElementById('f-instance').value = '*'")
        for name, value in (("delay", 400), ("drop", 30)):
            page.value(f"(() => {{ const e = document.getElementById('f-{name}'); e.value = '{value}'; e.dispatchEvent(new Event('input')); }})()")
        page.value("document.getElementById('f-apply').click()")
        page.wait("document.getElementById('f-said').textContent.startsWith('Applied')", 60)
        page.wait("[...document.querySelectorAll('.node .mark')].some((m) => m.textContent.includes('drop 30'))", 60, "the fault on the map")
        page.wait("!!document.querySelector('.sync circle.resync') && !!document.querySelector('.sync circle.gap')", 120, "gaps and resyncs")
        self.assertTrue(any(i.get("age", 0) > 0.2 for i in self.served.get("status.json")["instances"]), "no state became old")
        page.screenshot(os.path.join(OUT, "dashboard-fault.png"))
        page.value("document.getElementById('f-heal').click()")
        page.wait("[...document.querySelectorAll('.node')].every((n) => n.dataset.health === 'fresh')", 120, "healed")
        until = time.monotonic() + 120
        while max(i["age"] for i in self.served.get("status.json")["instances"]) > 0.3:
            self.assertLess(time.monotonic(), until, "states stay old")
            time.sleep(0.2)

    def test_a_killed_engine_is_shown_and_comes_back_under_a_new_epoch(self):
        page = self.browser
        before = {i["instance"]: i["epoch"] for i in self.served.get("status.json")["instances"]}
        name = sorted(before)[0]
        page.value(f"document.getElementById('f-instance').value = '{name}'")
        page.value("document.getElementById('f-kill').click()")
        mine = f"[...document.querySelectorAll('.node')].find((n) => n.querySelector('.id').textContent === '{name}')"
        page.wait(mine + ".dataset.health === 'down'", 60, "the dead engine on the map")
        page.wait(mine + ".dataset.health === 'fresh'", 120, "the engine back")
        after = {i["instance"]: i["epoch"] for i in self.served.get("status.json")["instances"]}
        self.assertGreater(after[name], before[name])

    def test_it_works_by_keyboard(self):
        page = self.browser
        page.value("document.querySelector('.node').focus()")
        page.press("Enter")
        page.wait("!document.getElementById('detail').hidden", 60, "an instance's figures by keyboard")
        page.value("document.querySelector('.decision summary').focus()")
        page.press("Enter")
        page.wait("!!document.querySelector('.decision[open] tbody tr')", 60, "a decision's candidates by keyboard")
        rows = page.value("document.querySelectorAll('.decision[open] tbody tr').length")
        self.assertGreater(rows, 5)  # one that another test killed is no candidate
        page.value("document.querySelector('.decision[open] summary').click(); document.activeElement.blur(); document.querySelector('.node').click()")

    def test_nothing_overflows_at_three_widths(self):
        for width, scheme in ((360, "dark"), (820, "light"), (1440, "dark"), (1440, "light")):
            self.browser.resize(width, 900)
            self.browser.colours(scheme)
            time.sleep(0.6)
            self.browser.screenshot(os.path.join(OUT, f"dashboard-{width}-{scheme}.png"))
            self.assertLessEqual(self.browser.value("document.documentElement.scrollWidth"), width)
            self.assertGreater(self.browser.value("document.querySelectorAll('canvas').length"), 3)

    def test_a_reader_of_the_screen_is_told_what_is_shown(self):
        if not os.path.exists(AXE):
            self.skipTest("axe-core is not here: `./foretoken test` sets it up (npm)")
        with open(AXE, encoding="utf-8") as file:
            source = file.read()
        for width, scheme in ((1280, "light"), (1280, "dark"), (360, "dark")):
            self.browser.resize(width, 900)
            self.browser.colours(scheme)
            time.sleep(0.6)
            self.browser.value(source + "; 0")
            found = self.browser.value("axe.run(document, {resultTypes: ['violations']}).then((r) => r.violations.map((v) => "
                                       "v.id + ': ' + v.nodes.slice(0, 3).map((n) => n.html.slice(0, 200) + ' ' + n.failureSummary).join(' | ')))")
            self.assertEqual(found, [], f"{width} {scheme}")


@unittest.skipUnless(browsers.CHROMIUM, "no chromium here: apt install chromium to run this test")
class QuickstartTest(unittest.TestCase):
    def test_the_page_that_quickstart_prints_shows_live_decisions_and_both_systems(self):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            page = browsers.Browser(folder)
            self.addCleanup(page.close)
            started = subprocess.Popen([PROGRAM, "quickstart", "--dashboard", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            self.addCleanup(started.stdout.close)
            self.addCleanup(started.wait)
            self.addCleanup(started.kill)
            url = next(found.group(1) for line in started.stdout if (found := re.search(r"Watch it: +(\S+)", line)))
            begun = time.monotonic()
            page.open(url)
            page.wait("document.querySelectorAll('.decision').length > 0", 120, "live decisions")
            print(f"[measured] from the URL to live decisions on the page: {time.monotonic() - begun:.2f} s (goal: 5 s)", flush=True)
            self.assertEqual(page.value("[...document.getElementById('source').options].map((o) => o.value)"), ["cluster", "gateway"])
            page.value("(() => { const s = document.getElementById('source'); s.value = 'gateway'; s.dispatchEvent(new Event('change')); })()")
            page.wait("document.getElementById('facts').textContent.includes('gateway')", 60, "the gateway's page")
            self.assertTrue(page.value("document.getElementById('fault-panel').hidden"), "a switch for faults where there is none")
            self.assertEqual(page.failures, [])


@unittest.skipUnless(browsers.CHROMIUM, "no chromium here: apt install chromium to run this test")
class ManyInstancesTest(unittest.TestCase):
    def test_256_instances_are_one_picture(self):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            file = os.path.join(folder, "many.yaml")
            with open("configs/topologies/small.yaml", encoding="utf-8") as small, open(file, "w", encoding="utf-8") as out:
                out.write(small.read())
            served = Served("--topology", file, "--set", "pools[0].instances[0].count=256", "--set", "scheduler.hosting=shard", "--load", "rate=20")
            self.addCleanup(served.close)
            page = browsers.Browser(folder)
            self.addCleanup(page.close)
            page.open(served.url)
            page.wait(LIVE, 120, "live decisions")
            self.assertEqual(page.value("document.querySelectorAll('.many .node').length"), 256)
            page.resize(360, 900)
            time.sleep(0.5)
            self.assertLessEqual(page.value("document.documentElement.scrollWidth"), 360)
            page.value("document.querySelectorAll('.node')[200].click()")
            page.wait("!document.getElementById('detail').hidden", 60)
            page.resize(1440, 900)
            time.sleep(1)
            page.screenshot(os.path.join(OUT, "dashboard-256.png"))
            self.assertEqual(page.failures, [])


if __name__ == "__main__":
    unittest.main()
