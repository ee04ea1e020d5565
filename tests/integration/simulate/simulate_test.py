#!/usr/bin/env python3
"""`foretoken simulate` as a user runs it: all requests end once, decisions repeat, bad input is one clear message and nothing else."""
import hashlib
import json
import os
import subprocess
import tempfile
import unittest

PROGRAM = os.path.abspath("integration/cli/foretoken")
TOPOLOGY = "configs/topologies/mixed-gpu.yaml"
WORKLOAD = "configs/workloads/azure-conv-2023.yaml"
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
ROW = "2023-11-16 18:15:46.6805900,374,44\r\n"


def run(*arguments):
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=120)


def simulate(*arguments):
    done = run("simulate", "--topology", TOPOLOGY, "--workload", WORKLOAD, "--rate-scale", 12, "--limit", 600, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class SimulateTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name, content=None):
        path = os.path.join(self.folder, name)
        if content is not None:
            with open(path, "w", newline="") as out:
                out.write(content)
        return path

    def test_every_request_ends_once_and_the_figures_add_up(self):
        for policy in ("auto", "min_e2e", "round_robin", "lmetricw"):
            r = simulate("--policy", policy)
            self.assertEqual(r["requests"], 600)
            self.assertEqual(r["completed"] + r["rejected"] + r["cancelled"] + r["failed"] + r["lost"], 600)
            self.assertEqual((r["lost"], r["duplicated"]), (0, 0))
            self.assertLess(r["ttft"]["p50"], r["e2e"]["p50"])

    def test_the_digest_is_that_of_the_log_and_repeats_by_seed(self):
        logs = {}
        for tag, seed in (("a", 7), ("b", 7), ("c", 8)):
            report = simulate("--policy", "min_e2e", "--seed", seed, "--decisions", self.path(tag))
            with open(self.path(tag), "rb") as log:
                logs[tag] = log.read()
            self.assertEqual(hashlib.sha256(logs[tag]).hexdigest(), report["decision_digest"])
        self.assertEqual(logs["a"], logs["b"])
        self.assertNotEqual(logs["a"], logs["c"])
        keys = ["t_ns", "request", "instance", "policy", "predictor", "state_version", "score"]
        rows = [json.loads(line) for line in logs["a"].splitlines()]
        self.assertTrue(all(list(row) == keys for row in rows))
        self.assertEqual(len({row["request"] for row in rows}), 600)

    def test_the_csv_has_a_row_per_request(self):
        report = simulate("--requests", self.path("r.csv"))
        with open(self.path("r.csv")) as rows:
            lines = rows.read().splitlines()
        self.assertEqual(len(lines), 601)
        self.assertEqual(sum(",finished," in line for line in lines), report["completed"])

    def test_oracle_lengths_and_full_sync_predict_well(self):
        p = simulate("--policy", "min_e2e", "--length-estimator", "oracle")["prediction"]
        self.assertLess(p["ttft_ape"]["p50"], 0.05)
        self.assertLess(p["e2e_ape"]["p50"], 0.25)

    def test_faults_are_seen_and_lose_nothing(self):
        for plan, counter in (("loss_1", "gap"), ("duplicate_10", "duplicate"), ("reorder_10", "reordered")):
            r = simulate("--policy", "min_e2e", "--faults", f"configs/faults/{plan}.yaml")
            self.assertEqual((r["completed"], r["lost"], r["duplicated"]), (600, 0, 0), plan)
            self.assertGreater(r["sync"][counter], 0, plan)

    def test_bad_traces_are_one_message_and_nothing_is_written(self):
        cases = {
            "truncated": HEADER + ROW + "2023-11-16 18:15:50",
            "negative": HEADER + "2023-11-16 18:15:46.6805900,-4,44\r\n",
            "backwards": HEADER + ROW + "2023-11-16 18:15:40.0000000,374,44\r\n",
            "long line": HEADER + "x" * 10_000_000,
            "empty": "",
        }
        for name, content in cases.items():
            trace = self.path("trace.csv", content)
            log = self.path("log")
            done = run("simulate", "--topology", TOPOLOGY, "--trace", trace, "--decisions", log)
            self.assertEqual((done.returncode, done.stdout), (2, ""), name)
            self.assertEqual(len(done.stderr.strip().splitlines()), 1, name)
            self.assertIn(trace, done.stderr, name)
            self.assertFalse(os.path.exists(log), name)
        for place in (self.folder, "/nowhere/at/all"):
            self.assertEqual(run("simulate", "--topology", TOPOLOGY, "--trace", place).returncode, 2)

    def test_overrides_are_as_strict_as_the_file(self):
        for override, hint in (("scheduler.polcy=auto", "policy"), ("scheduler.policy=min_e2", "min_e2e"), ("seed=x", "seed")):
            done = run("simulate", "--topology", TOPOLOGY, "--workload", WORKLOAD, "--set", override)
            self.assertEqual(done.returncode, 2, override)
            self.assertIn(hint, done.stderr, override)

    def test_a_fault_plan_that_names_no_instance_is_refused(self):
        plan = self.path("plan.yaml", "name: nobody\nrestarts:\n  - { instances: nobody-*, at: 1s, downtime: 1s }\n")
        done = run("simulate", "--topology", TOPOLOGY, "--workload", WORKLOAD, "--limit", 10, "--faults", plan)
        self.assertEqual(done.returncode, 2)
        self.assertIn("nobody-*", done.stderr)

    def test_a_trace_and_a_workload_together_are_refused(self):
        done = run("simulate", "--topology", TOPOLOGY, "--workload", WORKLOAD, "--trace", "x")
        self.assertEqual(done.returncode, 2)


class LiveTest(unittest.TestCase):
    def test_serve_runs_its_load_on_the_real_clock(self):
        done = run("serve", "--topology", "configs/topologies/small.yaml", "--load", "rate=20,requests=20", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout)
        self.assertEqual((report["completed"], report["lost"], report["duplicated"]), (20, 0, 0))


if __name__ == "__main__":
    unittest.main()
