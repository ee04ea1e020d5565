#!/usr/bin/env python3
"""foretoken eval as a user runs it: files, order, resuming, equality with simulate, and every shipped experiment in small."""
import csv
import glob
import html.parser
import json
import os
import re
import subprocess
import tempfile
import unittest

PROGRAM = "tests/integration/eval/eval_alone"
EXPERIMENT = """name: tiny
question: Is the order kept?
topologies: [topologies/small.yaml]
workloads: [workloads/azure-conv-2023.yaml]
axes:
  scheduler.policy: [round_robin, least_requests, min_e2e]
  sync.level: [none, "poll:100ms"]
rate_scales: [2]
seeds: [3, 1]
limit: 60
"""


def run(*arguments):
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=240)


def read(*path):
    with open(os.path.join(*path), encoding="utf-8") as file:
        return file.read()


class Page(html.parser.HTMLParser):
    """Checks that elements close in order, and gathers what a page loads and labels."""
    VOID = {"meta", "link", "br", "img", "input", "hr"}

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.tables, self.captions, self.unlabelled = [], [], 0, 0, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.loads += [attrs[a] for a in ("src", "href") if a in attrs and not attrs[a].startswith("#")]
        self.tables += tag == "table"
        self.captions += tag == "caption"
        if tag == "canvas" and not (attrs.get("role") == "img" and attrs.get("aria-label")):
            self.unlabelled.append(attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            raise AssertionError(f"</{tag}> at {self.getpos()} closes nothing")


def write_measured_run(folder, requests):
    """A run as a server would have measured it: a request a second, of (prompt tokens, output tokens, TTFT s, E2E s)."""
    os.makedirs(folder)
    with open(os.path.join(folder, "meta.json"), "w", encoding="utf-8") as file:
        json.dump({"engine_kwargs": {"max_num_seqs": 8, "max_num_batched_tokens": 2048, "max_model_len": 4096},
                   "kv_cache": {"num_gpu_blocks": 4000, "block_size": 16}}, file)
    with open(os.path.join(folder, "requests.jsonl"), "w", encoding="utf-8") as file:
        for k, (prompt, output, ttft, e2e) in enumerate(requests):
            file.write(json.dumps({"request_id": f"r{k}", "input_toks": prompt, "output_toks": output, "arrival_time": 1000.0 + k,
                                   "queued_ts": 50.0 + k, "scheduled_ts": 50.0 + k, "first_token_ts": 50.0 + k + ttft,
                                   "last_token_ts": 50.0 + k + e2e}) + "\n")


MEASURED = """name: truth
question: Does the engine do as the server did?
measured:
  - {{ name: ours, run: {folder}, table: configs/tables/h100-llama-3.1-8b.csv }}
  - {{ name: lost, run: {folder}-that-is-not-there, table: configs/tables/h100-llama-3.1-8b.csv }}
calibrate_first: [0, 5]
"""


class EvalTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.out = folder.name
        self.file = os.path.join(folder.name, "tiny.yaml")
        with open(self.file, "w", encoding="utf-8") as file:
            file.write(EXPERIMENT.replace("topologies/", os.path.abspath("configs/topologies") + "/")
                       .replace("workloads/", os.path.abspath("configs/workloads") + "/"))

    def evaluate(self, folder, *more):
        done = run("eval", self.file, "--out", os.path.join(self.out, folder), "--json", *more)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def rows(self, folder):
        return list(csv.DictReader(read(self.out, folder, "results.csv").splitlines()))

    def test_rows_come_in_the_order_of_the_grid_with_seeds_innermost(self):
        self.evaluate("a", "--jobs", "3")
        self.assertEqual([(r["scheduler.policy"], r["sync.level"], r["seed"]) for r in self.rows("a")],
                         [(p, s, seed) for p in ("round_robin", "least_requests", "min_e2e") for s in ("none", "poll:100ms")
                          for seed in ("3", "1")])

    def test_results_do_not_depend_on_the_number_of_threads(self):
        self.evaluate("one", "--jobs", "1")
        self.evaluate("four", "--jobs", "4")
        for name in ("results.csv", "summary.md", "report.html"):
            self.assertEqual(read(self.out, "one", name), read(self.out, "four", name), name)

    def test_an_interrupted_run_goes_on_where_it_was(self):
        self.evaluate("a")
        whole = read(self.out, "a", "results.csv")
        log = os.path.join(self.out, "a", "cells.jsonl")
        lines = read(log).splitlines(keepends=True)
        kept = json.loads(lines[1])
        kept["figures"]["steps"] = 123456  # a row that was kept shows; one that was run again would not
        with open(log, "w", encoding="utf-8") as file:
            file.writelines([lines[0], json.dumps(kept) + "\n", *lines[2:5], lines[5][:40]])  # the last was cut short
        self.evaluate("a", "--resume")
        differing = [k for k, (was, now) in enumerate(zip(whole.splitlines(), read(self.out, "a", "results.csv").splitlines()))
                     if was != now]
        self.assertEqual(len(differing), 1)
        self.assertIn("123456", read(self.out, "a", "results.csv"))
        self.evaluate("a")  # without --resume everything is run
        self.assertEqual(read(self.out, "a", "results.csv"), whole)

    def test_rows_of_other_inputs_are_refused(self):
        self.evaluate("a")
        done = run("eval", self.file, "--out", os.path.join(self.out, "a"), "--resume", "--limit", "50")
        self.assertEqual(done.returncode, 1)
        self.assertIn("another experiment", done.stderr)

    def test_figures_equal_those_of_simulate(self):
        self.evaluate("a")
        for row in self.rows("a"):
            done = run("simulate", "--topology", "configs/topologies/small.yaml", "--workload",
                       "configs/workloads/azure-conv-2023.yaml", "--policy", row["scheduler.policy"], "--sync", row["sync.level"],
                       "--seed", row["seed"], "--limit", "60", "--rate-scale", "2", "--json")
            self.assertEqual(done.returncode, 0, done.stderr)
            report = json.loads(done.stdout)
            self.assertEqual(row["decision_digest"], report["decision_digest"])
            for key, value in {"ttft_mean": report["ttft"]["mean"], "e2e_p99": report["e2e"]["p99"], "lost": report["lost"],
                               "slo_attainment": report["slo_attainment"], "sync_applied": report["sync"]["applied"],
                               "steps": report["steps"]}.items():
                self.assertAlmostEqual(float(row[key]), value, places=9, msg=key)

    def test_warm_up_and_drain_are_run_but_not_counted(self):
        self.evaluate("all")
        self.evaluate("cut", "--set", "warmup_share=0.1", "--set", "drain_share=0.05")
        for whole, cut in zip(self.rows("all"), self.rows("cut")):
            self.assertEqual((whole["counted"], cut["counted"]), ("60", "51"))
            self.assertEqual((whole["steps"], whole["requests"]), (cut["steps"], cut["requests"]))
            self.assertNotEqual(whole["ttft_mean"], cut["ttft_mean"])
        self.assertIn("51 are counted", read(self.out, "cut", "summary.md"))

    def test_the_report_is_one_well_formed_page_that_loads_nothing(self):
        self.evaluate("a")
        text = read(self.out, "a", "report.html")
        page = Page(text)
        self.assertEqual((page.open, page.loads, page.unlabelled), ([], [], []))
        self.assertGreater(page.tables, 0)
        self.assertEqual(page.tables, page.captions)
        style = text.partition("<style>")[2].partition("</style>")[0]
        self.assertNotRegex(style, r"url\(|@import")
        self.assertNotRegex(text.rpartition("<script>")[2], r"fetch\(|XMLHttpRequest|import\(|https?:")
        data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL).group(1))
        self.assertEqual(len(data["combinations"]), 6)
        self.assertEqual(len(data["combinations"][0]["e2e"]), 101)

    def test_a_measured_run_stands_beside_its_replays(self):
        folder = os.path.join(os.path.abspath(self.out), "run")
        requests = [(100 + 10 * k, 20 + k, 0.05 + 0.001 * k, 1.0 + 0.01 * k) for k in range(30)]
        write_measured_run(folder, requests)
        file = os.path.join(self.out, "truth.yaml")
        with open(file, "w", encoding="utf-8") as out:
            out.write(MEASURED.format(folder=folder).replace("configs/", os.path.abspath("configs") + "/"))
        done = run("eval", file, "--out", os.path.join(self.out, "m"), "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, "skipped: lost: .*that-is-not-there")
        rows = list(csv.DictReader(read(self.out, "m", "results.csv").splitlines()))
        self.assertEqual([r["source"] for r in rows], ["measured", "engine", "engine, calibrated on 5"])
        measured, engine, calibrated = rows
        counted = requests[5:]  # what a replay was calibrated on counts nowhere
        self.assertAlmostEqual(float(measured["ttft_mean"]), sum(r[2] for r in counted) / 25, places=6)
        self.assertAlmostEqual(float(measured["e2e_mean"]), sum(r[3] for r in counted) / 25, places=6)
        self.assertEqual(measured["truth_e2e_mape"], "")
        for row in (engine, calibrated):
            self.assertEqual(row["counted"], "25")
            for figure in ("ttft", "e2e"):
                error = float(row[f"{figure}_mean"]) / float(measured[f"{figure}_mean"]) - 1
                self.assertAlmostEqual(float(row[f"truth_{figure}_mean_error"]), error, places=6)
        # The server is slower than the table: a factor fitted to its start comes nearer.
        self.assertEqual(float(engine["truth_factor"]), 1)
        self.assertGreater(float(calibrated["truth_factor"]), 1.5)
        self.assertLess(float(calibrated["truth_e2e_mape"]), float(engine["truth_e2e_mape"]) / 2)
        page = Page(read(self.out, "m", "report.html"))
        self.assertEqual((page.open, page.loads, page.unlabelled), ([], [], []))

    def test_every_shipped_experiment_runs_in_its_smoke_size(self):
        for file in sorted(glob.glob("configs/experiments/*.yaml")):
            with self.subTest(file=file):
                folder = os.path.join(self.out, os.path.basename(file))
                done = run("eval", file, "--out", folder, "--smoke", "--json")
                if done.returncode == 1 and "no measured run is there" in done.stderr:
                    continue  # needs recordings beside the repository
                self.assertEqual(done.returncode, 0, done.stderr)
                rows = list(csv.DictReader(read(folder, "results.csv").splitlines()))
                self.assertEqual(len(rows), json.loads(done.stdout)["runs"])
                self.assertTrue(all(float(r["lost"]) == 0 for r in rows), "a request without an outcome")

    def test_the_capacity_meets_the_share_and_a_little_more_does_not(self):
        done = run("eval", "--find-capacity", "--topology", "configs/topologies/small.yaml", "--workload",
                   "configs/workloads/azure-conv-2023.yaml", "--policy", "least_requests", "--limit", "300", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        found = json.loads(done.stdout)
        self.assertGreaterEqual(found["slo_attainment"], 0.9)
        missed = [scale for scale, met in found["tried"] if met < 0.9]
        self.assertLessEqual(min(missed), found["rate_scale"] * 1.011)

    def test_the_cheapest_fleet_meets_the_share_and_cheaper_ones_that_were_tried_do_not(self):
        done = run("eval", "--find-fleet", "--topology", "configs/topologies/mixed-gpu.yaml", "--workload",
                   "configs/workloads/azure-conv-2023.yaml", "--policy", "least_requests", "--limit", "300", "--rate", "12",
                   "--instances-max", "3", "--price", "h100-llama-8b=4", "--price", "a100-llama-8b=1.8", "--price",
                   "l40s-llama-8b=1", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        found = json.loads(done.stdout)
        prices = [price for _, price, _ in found["tried"]]
        self.assertEqual(prices, sorted(prices))
        self.assertGreaterEqual(found["slo_attainment"], 0.9)
        self.assertTrue(all(met < 0.9 for _, _, met in found["tried"][:-1]))
        self.assertEqual((found["fleet"], found["price"]), (found["tried"][-1][0], prices[-1]))

    def test_tuning_tries_as_many_points_for_every_policy_with_constants(self):
        done = run("eval", self.file, "--out", os.path.join(self.out, "t"), "--tune", "--goal", "e2e_mean", "--json", "--set",
                   "axes={scheduler.policy: [lmetricw, cache_aware, lmetric]}")
        self.assertEqual(done.returncode, 0, done.stderr)
        tuned = {t["policy"]: t for t in json.loads(done.stdout)}
        self.assertEqual({p: t["tried"] for p, t in tuned.items()}, {"lmetricw": 9, "cache_aware": 9, "lmetric": 1})
        for t in tuned.values():
            self.assertLessEqual(t["best"], t["default"])
        self.assertEqual(list(tuned["lmetricw"]["weights"]), ["scheduler.weights.lmetricw_output"])

    def test_a_workload_whose_trace_is_absent_is_left_out_aloud_and_stood_in_for_in_small(self):
        with open(os.path.join(self.out, "gone.yaml"), "w", encoding="utf-8") as file:
            file.write(f"name: gone\nkind: trace\nfile: nowhere.csv\nstand_in: {os.path.abspath('configs/workloads')}/steady.yaml\n")
        both = ["--set", f"workloads=[gone.yaml, {os.path.abspath('configs/workloads')}/steady.yaml]"]
        whole = run("eval", self.file, "--out", os.path.join(self.out, "w"), "--json", *both)
        self.assertEqual(whole.returncode, 0, whole.stderr)
        self.assertRegex(whole.stderr, r"skipped: .*gone\.yaml: its trace nowhere\.csv is not there")
        self.assertEqual({r["workload"] for r in self.rows("w")}, {"steady"})
        small = run("eval", self.file, "--out", os.path.join(self.out, "s"), "--json", "--smoke", *both)
        self.assertEqual(small.returncode, 0, small.stderr)
        self.assertEqual({r["workload"] for r in self.rows("s")}, {"gone", "steady"})

    def test_bad_input_says_what_to_give(self):
        for arguments, expected in {("eval",): "give an EXPERIMENT file", ("eval", self.file): "--out DIR",
                                    ("eval", "nowhere.yaml", "--out", "x"): "nowhere.yaml",
                                    ("eval", "--find-capacity"): "--topology",
                                    ("eval", "--find-fleet"): "--rate"}.items():
            done = run(*arguments)
            self.assertEqual((done.returncode, done.stdout), (2, ""))
            self.assertIn(expected, done.stderr)


if __name__ == "__main__":
    unittest.main()
