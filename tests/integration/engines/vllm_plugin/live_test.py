#!/usr/bin/env python3
"""A live, unmodified vLLM server with foretoken_vllm behind `foretoken gateway`: the shadow decides every step as the server does and equals
it at every snapshot, block for block; with faults on the sync link, and after kill -9, it finds back. FORETOKEN_VLLM names a python that has
vLLM (./foretoken test --real-engines sets it up); without it the test says so and passes. The long form: measure_mirror.py --minutes 10."""
import asyncio
import json
import os
import pathlib
import sys
import tempfile
import unittest

PYTHON = os.environ.get("FORETOKEN_VLLM")
if __name__ == "__main__" and PYTHON and pathlib.Path(sys.executable) != pathlib.Path(PYTHON):
    os.environ["HOME"] = os.environ.get("TEST_TMPDIR", os.environ.get("HOME", "/"))  # vLLM keeps caches there
    os.execv(PYTHON, [PYTHON, __file__, *sys.argv[1:]])

ROOT = pathlib.Path(__file__).absolute().parents[4]
sys.path[:0] = [str(ROOT / "integration" / "engines" / "vllm")]
PROGRAM = os.path.abspath(os.environ.get("FORETOKEN", "integration/cli/foretoken"))
MISSING = "" if PYTHON else os.environ.get("FORETOKEN_VLLM_MISSING", "no vLLM to test with: ./foretoken test --real-engines sets it up")


@unittest.skipIf(MISSING, MISSING)
class LiveMirrorTest(unittest.TestCase):
    def measure(self, **arguments):
        import measure_mirror

        with tempfile.TemporaryDirectory() as folder:
            report = asyncio.run(measure_mirror.measure(sys.executable, PROGRAM, folder, seed=7, **arguments))
        print(json.dumps(report, indent=1))
        return report

    def test_the_mirror_of_a_live_server_is_exact(self):
        r = self.measure(minutes=0.4, rate=6)
        self.assertEqual((r["disagreements"], r["snapshots_differed"], r["steps_followed"]), (0, 0, 0), r)
        self.assertEqual((r["level"], r["failed"]), ("exact", 0))
        for key in ("steps_decided", "snapshots_compared", "foreign_requests", "left", "turns"):
            self.assertGreater(r[key], 0, key)

    def test_faults_on_the_link_and_a_killed_server_are_repaired(self):
        r = self.measure(minutes=0.4, rate=6, policy="priority", loss=0.01, reorder=0.05, delay_ms=20, kill=True)
        self.assertEqual((r["disagreements"], r["snapshots_differed"], r["restarts"]), (0, 0, 1), r)
        self.assertEqual(r["level"], "exact")
        for key in ("frames_lost", "resyncs", "repairs", "snapshots_restored"):
            self.assertGreater(r[key], 0, key)


if __name__ == "__main__":
    unittest.main()
