#!/usr/bin/env python3
"""report.html in a real browser without a screen: charts are painted, nothing fails, and choices made with the keyboard are followed.

Skipped with a message where there is no chromium (apt install chromium). The screenshots are among the test's outputs.
"""
import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest

PROGRAM = "tests/integration/eval/eval_alone"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EXPERIMENT = """name: page
question: Does the page work?
topologies: [{configs}/topologies/small.yaml]
workloads: [{configs}/workloads/azure-conv-2023.yaml]
axes:
  scheduler.policy: [round_robin, least_requests, min_e2e]
rate_scales: [1, 2]
seeds: 2
limit: 60
"""
# Runs in the page once it is drawn: what was painted, what failed, and what a choice changes.
PROBE = """<script>
const failures = [];
addEventListener("error", (e) => failures.push(String(e.message)));
addEventListener("load", () => setTimeout(() => {
  const painted = () => [...document.querySelectorAll("canvas")].map((c) => {
    const pixels = c.width && c.height ? c.getContext("2d").getImageData(0, 0, c.width, c.height).data : [];
    let n = 0, sum = 0;
    for (let i = 3; i < pixels.length; i += 4) if (pixels[i] > 0) { n += 1; sum = (sum * 31 + pixels[i - 1]) % 1000003; }
    return [n, sum];
  });
  const before = painted(), boxes = [...document.querySelectorAll("select")];
  const box = boxes.find((b) => b.options.length > 1);
  const label = box ? box.closest("label") !== null : false;
  if (box) { box.focus(); box.selectedIndex = box.options.length - 1; box.dispatchEvent(new Event("change", {bubbles: true})); }
  setTimeout(() => {
    const out = document.createElement("pre");
    out.id = "probe";
    out.textContent = JSON.stringify({before, after: painted(), boxes: boxes.length, label, failures});
    document.body.append(out);
  }, 1500);
}, 1500));
</script>"""


@unittest.skipUnless(BROWSER, "no chromium here: apt install chromium to run this test")
class ReportPageTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        file = os.path.join(self.folder, "page.yaml")
        with open(file, "w", encoding="utf-8") as out:
            out.write(EXPERIMENT.format(configs=os.path.abspath("configs")))
        done = subprocess.run([PROGRAM, "eval", file, "--out", self.folder, "--json"], capture_output=True, text=True, timeout=240)
        self.assertEqual(done.returncode, 0, done.stderr)

    def browse(self, page, *flags):
        return subprocess.run(
            [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,2600",
             "--virtual-time-budget=10000", "--user-data-dir=" + os.path.join(self.folder, "profile"), *flags, "file://" + page],
            capture_output=True, text=True, timeout=240, env=dict(os.environ, HOME=self.folder))

    def test_charts_are_painted_and_follow_a_choice(self):
        report = os.path.join(self.folder, "report.html")
        with open(report, encoding="utf-8") as file:
            text = file.read()
        probed = os.path.join(self.folder, "probed.html")
        with open(probed, "w", encoding="utf-8") as file:
            file.write(text.replace("</body>", PROBE + "</body>"))
        done = self.browse(probed, "--dump-dom")
        found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
        self.assertTrue(found, "the page's own scripts did not come to their end: " + done.stderr[-2000:])
        seen = json.loads(found.group(1))
        self.assertEqual(seen["failures"], [])
        self.assertGreater(len(seen["before"]), 3)
        self.assertTrue(all(pixels > 100 for pixels, _ in seen["before"]), f"an empty chart: {seen['before']}")
        self.assertGreater(seen["boxes"], 2)
        self.assertTrue(seen["label"], "a choice without a label")
        self.assertNotEqual(seen["before"], seen["after"], "no chart changed with the choice")
        outputs = os.environ.get("TEST_UNDECLARED_OUTPUTS_DIR", self.folder)
        picture = os.path.join(outputs, "report.png")
        self.browse(report, "--screenshot=" + picture)
        self.assertGreater(os.path.getsize(picture), 20_000)


if __name__ == "__main__":
    unittest.main()
