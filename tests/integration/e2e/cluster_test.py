#!/usr/bin/env python3
"""Real processes on loopback, and what happens to them: killed, stopped and continued, stalled links, restarts in a loop. What must hold: no
request is lost, none is answered twice, no SIMULATOR has two owners, and what fails is reported.

FORETOKEN_E2E_REPETITIONS=20 repeats the failures and prints how long detection and recovery took."""
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from tests.integration.e2e.cluster import ENGINE, PROGRAM, TOPOLOGY, Cluster, Process, Proxy  # noqa: E402

REPETITIONS = int(os.environ.get("FORETOKEN_E2E_REPETITIONS", "1"))
TOGETHER = [("router", ["scheduler"]), ("gpu-0", ["i-0", "i-1"]), ("gpu-1", ["i-2", "i-3"]), ("gpu-2", ["i-4", "i-5"])]
APART = [("router", ["scheduler"]), ("mirrors", ["simulator:i-*"]), ("gpu-0", ["engine:i-0", "engine:i-1"]),
         ("gpu-1", ["engine:i-2", "engine:i-3"])]


def show(what, seconds):
    ordered = sorted(seconds)
    print(f"{what}: median {statistics.median(ordered) * 1e3:.0f} ms, worst {ordered[-1] * 1e3:.0f} ms of {len(ordered)}")


class ClusterTest(unittest.TestCase):
    def accounts(self, cluster, failed=0):
        """What the load says at its end: every request has exactly one outcome."""
        r = cluster.result("router")
        shown = {k: r[k] for k in ("requests", "completed", "rejected", "cancelled", "failed", "lost", "duplicated", "retried")}
        self.assertEqual((r["lost"], r["duplicated"]), (0, 0), shown)
        self.assertEqual(r["completed"] + r["rejected"] + r["cancelled"] + r["failed"], r["requests"], shown)
        self.assertLessEqual(r["failed"] + r["rejected"] + r["cancelled"], failed, shown)
        return r

    def single_owners(self, cluster, names):
        """All nodes name the same owner for every SIMULATOR, and that many are owned in all."""
        until = time.monotonic() + 20
        while True:
            nodes = [n for n in cluster.status().values() if n["node"] in names]
            views = [{i["instance"]: (i["simulator_on"], i["term"]) for i in n["instances"]} for n in nodes if "instances" in n]
            owned = sum(n.get("simulators_owned", 0) for n in nodes)
            if len(views) == len(names) and all(v == views[0] for v in views) and owned == len(views[0]):
                return views[0]
            self.assertLess(time.monotonic(), until, f"owners do not agree: {views}, {owned} owned")

    def test_a_load_is_spread_over_the_nodes_by_predictions(self):
        with Cluster(TOGETHER, 6) as cluster:
            cluster.start_all(load="rate=30,requests=90")
            r = self.accounts(cluster)
            self.assertEqual(r["completed"], 90)
            self.assertEqual(r["retried"], 0)
            views = self.single_owners(cluster, ["gpu-0", "gpu-1", "gpu-2"])
            self.assertEqual(views, {f"i-{k}": (f"gpu-{k // 2}", 1) for k in range(6)})

    def test_a_killed_engine_node_loses_no_request(self):
        detected = []
        for _ in range(REPETITIONS):
            with Cluster(TOGETHER, 6) as cluster:
                router = cluster.start_all(load="rate=60,requests=300")
                router.wait_line("connected to node gpu-2")
                time.sleep(2)
                killed = time.monotonic()
                cluster.processes["gpu-1"].signal(signal.SIGKILL)
                detected.append(router.wait_line("lost node gpu-1", killed) - killed)
                r = self.accounts(cluster)
                self.assertEqual(r["completed"], 300)
                self.assertGreater(r["retried"], 0)
        show("kill -9 of an engine's node, detected", detected)

    def test_a_stopped_engine_node_loses_no_request_and_answers_none_twice(self):
        detected = []
        for _ in range(REPETITIONS):
            with Cluster(TOGETHER, 6) as cluster:
                router = cluster.start_all(load="rate=60,requests=360")
                router.wait_line("connected to node gpu-2")
                time.sleep(2)
                stopped = time.monotonic()
                cluster.processes["gpu-0"].signal(signal.SIGSTOP)
                detected.append(router.wait_line("lost node gpu-0", stopped) - stopped)
                time.sleep(0.5)
                cluster.processes["gpu-0"].signal(signal.SIGCONT)
                router.wait_line("connected to node gpu-0", stopped)
                r = self.accounts(cluster)
                self.assertEqual(r["completed"], 360)
                self.assertGreater(r["retried"], 0)
        show("SIGSTOP of an engine's node, detected", detected)

    def take_over(self, what, repetitions):
        """`what` happens to the node of the SIMULATORs under load while the engines live."""
        taken, fresh = [], []
        for _ in range(repetitions):
            with Cluster(APART, 4) as cluster:
                router = cluster.start_all(load="rate=40,requests=240")
                router.wait_line("connected to node gpu-1")
                time.sleep(2)
                begun = time.monotonic()
                cluster.processes["mirrors"].signal(what)
                for node, instances in (("gpu-0", (0, 1)), ("gpu-1", (2, 3))):
                    for k in instances:
                        taken.append(cluster.processes[node].wait_line(f"owns the simulator of instance {k} ", begun) - begun)
                        fresh.append(cluster.processes[node].wait_line(f"mirrors instance {k}$", begun) - begun)
                owners = self.single_owners(cluster, ["router", "gpu-0", "gpu-1"])
                self.assertEqual({k: v[0] for k, v in owners.items()}, {"i-0": "gpu-0", "i-1": "gpu-0", "i-2": "gpu-1", "i-3": "gpu-1"})
                # The old owner comes back: it gets its SIMULATORs again, under a higher term, and nobody answers for them twice.
                if what == signal.SIGSTOP:
                    cluster.processes["mirrors"].signal(signal.SIGCONT)
                else:
                    cluster.start("mirrors")
                router.wait_line("connected to node mirrors", begun)
                r = self.accounts(cluster)
                self.assertEqual(r["completed"], 240)
                self.assertEqual(r["retried"], 0)
                owners = self.single_owners(cluster, ["mirrors", "gpu-0", "gpu-1"])
                if all(v[0] == "mirrors" for v in owners.values()):
                    self.assertTrue(all(v[1] >= 3 for v in owners.values()), owners)
        return taken, fresh

    def test_a_killed_simulator_node_loses_nothing(self):
        taken, fresh = self.take_over(signal.SIGKILL, REPETITIONS)
        show("kill -9 of a SIMULATOR's node: taken over", taken)
        show("kill -9 of a SIMULATOR's node: predictions fresh", fresh)

    def test_a_stopped_simulator_node_loses_nothing_and_does_not_own_on(self):
        taken, fresh = self.take_over(signal.SIGSTOP, REPETITIONS)
        show("SIGSTOP of a SIMULATOR's node: taken over", taken)
        show("SIGSTOP of a SIMULATOR's node: predictions fresh", fresh)

    def test_a_stalled_link_is_a_lost_node_and_heals(self):
        proxies = []

        def through(port):
            proxies.append(Proxy(port))
            return proxies[-1].port

        detected = []
        for _ in range(REPETITIONS):
            with Cluster(TOGETHER, 6, via={("gpu-1", "router"): through}) as cluster:
                router = cluster.start_all(load="rate=40,requests=240")
                router.wait_line("connected to node gpu-2")
                time.sleep(2)
                begun = time.monotonic()
                proxies[-1].stalled.set()
                detected.append(router.wait_line("lost node gpu-1", begun) - begun)
                time.sleep(0.5)
                proxies[-1].stalled.clear()
                router.wait_line("connected to node gpu-1", begun)
                self.assertEqual(self.accounts(cluster)["completed"], 240)
            proxies[-1].close()
        show("a stalled link, detected", detected)

    def test_a_slow_link_delays_nothing_beyond_the_deadline(self):
        proxies = []

        def through(port):
            proxies.append(Proxy(port))
            proxies[-1].delay = 0.03
            return proxies[-1].port

        with Cluster(TOGETHER, 6, deadline="15ms", via={("gpu-1", "router"): through}) as cluster:
            cluster.start_all(load="rate=30,requests=90")
            r = self.accounts(cluster)
            self.assertEqual(r["completed"], 90)
        proxies[-1].close()

    def test_a_node_that_restarts_in_a_loop_harms_nobody_else(self):
        seed = 8
        rng = random.Random(seed)
        with Cluster(TOGETHER, 6) as cluster:
            router = cluster.start_all(load="rate=40,requests=320")
            router.wait_line("connected to node gpu-2")
            for _ in range(5):
                time.sleep(0.3 + rng.random())
                cluster.processes["gpu-1"].signal(signal.SIGKILL)
                cluster.start("gpu-1")
            # A request that meets its second crash is given up and reported; it is never lost.
            r = self.accounts(cluster, failed=320)
            self.assertGreaterEqual(r["completed"], 300, f"seed {seed}")

    def test_a_recorded_session_with_a_dead_node_replays_alike(self):
        with Cluster(TOGETHER, 6) as cluster:
            log = os.path.join(cluster.folder.name, "session.log")
            router = cluster.start_all(load="rate=50,requests=250", more=("--record", log))
            router.wait_line("connected to node gpu-2")
            time.sleep(2)
            cluster.processes["gpu-1"].signal(signal.SIGKILL)
            r = self.accounts(cluster)
            self.assertGreater(r["retried"], 0)
            replayed = json.loads(subprocess.run([PROGRAM, "replay", "--log", log, "--json"], capture_output=True, check=True).stdout)
            self.assertEqual((replayed["identical"], replayed["different"]), (250 + r["retried"], 0), replayed)
            told = subprocess.run([PROGRAM, "explain", "--log", log, "17", "--json"], capture_output=True, check=True).stdout
            events = [e["event"] for e in json.loads(told)["events"]]
            self.assertEqual(events[:3], ["scheduled", "chosen", "decided"])
            self.assertEqual(events[-1], "finished")
            verdict = json.loads(told)["verdict"]  # with which state at which age, what came, and what the others would have given
            self.assertEqual(set(verdict["actual"]), {"ttft_ms", "e2e_ms"})
            self.assertGreaterEqual(verdict["predicted"]["age_ms"], 0)
            self.assertGreater(len(verdict["others"]), 2)
            self.assertNotIn(verdict["instance"], [o["instance"] for o in verdict["others"]])

    def test_recorded_simulators_predict_alike_when_they_are_replayed(self):
        """Of the node that had them, which was killed, and of one that took them over from it."""
        with Cluster(APART, 4) as cluster:
            logs = {node: os.path.join(cluster.folder.name, node + ".log") for node in ("mirrors", "gpu-0")}
            for node, log in logs.items():
                cluster.start(node, more=("--record", log, "--record-sync"))
            cluster.start("gpu-1")
            router = cluster.start("router", "rate=50,requests=200")
            router.wait_line("connected to node mirrors")
            time.sleep(2)
            cluster.processes["mirrors"].signal(signal.SIGKILL)
            cluster.processes["gpu-0"].wait_line("owns the simulator of instance 0 ")
            self.assertEqual(self.accounts(cluster)["completed"], 200)
            cluster.processes["gpu-0"].signal(signal.SIGTERM)
            cluster.processes["gpu-0"].process.wait(60)
            for node, log in logs.items():
                done = subprocess.run([PROGRAM, "replay", "--log", log, "--json"], capture_output=True, text=True)
                replayed = json.loads(done.stdout)
                self.assertEqual(done.returncode, 0, (node, replayed))
                self.assertGreater(replayed["predictions"], 50, (node, replayed))
                self.assertEqual(replayed["predictions_identical"], replayed["predictions"], (node, replayed))

    def test_cordoned_instances_take_nothing_new_until_uncordoned(self):
        def instances(verb):
            done = subprocess.run([PROGRAM, "instances", verb, "--topology", cluster.path, "i-0", "i-1"], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)

        def steps():
            return sum(e["steps"] for e in cluster.status("gpu-0")["engines"].values())

        with Cluster(TOGETHER, 6) as cluster:
            cluster.start("gpu-0")
            cluster.start("gpu-1")
            cluster.start("gpu-2")
            cluster.wait_status("gpu-0", lambda s: any(p["connected"] for p in s["peers"]))
            instances("cordon")
            router = cluster.start("router", "rate=40,requests=200")
            router.wait_line("connected to node gpu-2")
            status = cluster.wait_status("router", lambda s: s["instances"][0]["state"] == "cordoned")
            self.assertEqual([i["state"] for i in status["instances"]], ["cordoned"] * 2 + ["serving"] * 4)
            time.sleep(1)
            self.assertEqual(steps(), 0)
            instances("uncordon")
            time.sleep(2)
            self.assertGreater(steps(), 0)
            self.assertEqual(self.accounts(cluster)["completed"], 200)

    def test_sighup_reloads_the_policy_and_refuses_a_broken_file(self):
        with Cluster(TOGETHER, 6) as cluster:
            router = cluster.start_all(load="rate=40,requests=160")
            router.wait_line("connected to node gpu-2")
            with open(cluster.paths["router"]) as f:
                text = f.read()
            for policy, said in (("no_such", "not reloaded"), ("round_robin", "reloaded: policy round_robin")):
                with open(cluster.paths["router"], "w") as f:
                    f.write(text.replace("policy: min_e2e", f"policy: {policy}"))
                at = time.monotonic()
                router.signal(signal.SIGHUP)
                router.wait_line(said, at)
            self.assertEqual(self.accounts(cluster)["completed"], 160)

    def test_sighup_reloads_the_faults_of_one_process_and_refuses_what_takes_a_restart(self):
        plan = "name: lossy\nlinks: [ { link: { from: instance, to: simulator }, drop_probability: 0.2 } ]\n"
        control = "name: control\nlinks: [ { link: { from: scheduler, to: simulator }, delay: 1ms } ]\n"
        with tempfile.TemporaryDirectory() as folder:
            for name, text in (("lossy", plan), ("control", control)):
                with open(f"{folder}/{name}.yaml", "w") as f:
                    f.write(text)
            bare = TOPOLOGY[:TOPOLOGY.index("nodes:")].format(engine=ENGINE, instances=2, deadline="20ms", heartbeat="50ms", stale="150ms", dead="400ms")

            def say(faults):
                with open(f"{folder}/t.yaml", "w") as f:
                    f.write(bare + (f"faults: {faults}.yaml\n" if faults else ""))

            say(None)
            process = Process("serve", [PROGRAM, "serve", "--topology", f"{folder}/t.yaml", "--load", "rate=30,requests=120", "--json"])
            try:
                process.wait_line("Ctrl-C drains")
                time.sleep(1)
                for faults, said in (("lossy", "reloaded: .*faults lossy"), ("missing", "not reloaded: .*no such file"),
                                     ("control", "not reloaded: .*take a restart"), (None, "reloaded: .*faults none")):
                    say(faults)
                    at = time.monotonic()
                    process.signal(signal.SIGHUP)
                    process.wait_line(said, at)
                    time.sleep(0.5)
                r = json.loads(process.process.stdout.read())
                self.assertEqual((r["completed"], r["lost"]), (120, 0))
                self.assertGreater(r["sync"]["link_lost"], 0)
                self.assertGreater(r["sync"]["resync"], 0)
            finally:
                process.end()

    def test_sigterm_drains_a_node(self):
        with Cluster(TOGETHER, 6) as cluster:
            router = cluster.start_all(load="rate=40,requests=240")
            router.wait_line("connected to node gpu-2")
            time.sleep(2)
            node = cluster.processes["gpu-2"]
            node.signal(signal.SIGTERM)
            self.assertEqual(node.process.wait(60), 0, node.log())
            r = self.accounts(cluster)
            self.assertEqual((r["completed"], r["retried"]), (240, 0))


if __name__ == "__main__":
    unittest.main(verbosity=2)
