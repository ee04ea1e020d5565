#!/usr/bin/env python3
"""Every node a host of its own (network namespaces), under load: nodes killed, stopped and continued, cut off by links taken down, slow; the
node of engines, of SIMULATORs whose engines live, of a SCHEDULER. What must hold: no request is lost, none is answered twice, what a dead
engine ran is reported and decided anew, no SIMULATOR has two owners.

    tests/integration/e2e/failures_test.py --repetitions 20        prints the table of docs/operations.md"""
import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(os.path.realpath(__file__)), "../../..")))
from tests.integration.e2e import hosts  # noqa: E402
from tests.integration.e2e.cluster import PROGRAM  # noqa: E402

REFUSED = hosts.begin()  # why there can be no namespaces, or None
REPETITIONS = int(os.environ.get("FORETOKEN_E2E_REPETITIONS", "1"))
TOGETHER = [("router", ["scheduler"]), ("gpu-0", ["i-0", "i-1"]), ("gpu-1", ["i-2", "i-3"]), ("gpu-2", ["i-4", "i-5"])]
APART = [("router", ["scheduler"]), ("mirrors", ["simulator:i-*"]), ("gpu-0", ["engine:i-0", "engine:i-1"]),
         ("gpu-1", ["engine:i-2", "engine:i-3"])]
# The clients are on a node of their own. The first SCHEDULER's node has all SIMULATORs too, so that both are lost with it.
TWO_SCHEDULERS = [("front", ["gateway"]), ("sched-0", ["scheduler", "simulator:i-*"]), ("sched-1", ["scheduler"]),
                  ("gpu-0", ["engine:i-0", "engine:i-1"]), ("gpu-1", ["engine:i-2", "engine:i-3"])]
LOAD = "rate=40,requests=160"
TABLE = []  # of what has been measured


def quantiles(seconds):
    if not seconds:
        return "-"
    return f"{statistics.median(seconds) * 1e3:.0f} / {max(seconds) * 1e3:.0f}"


class Failure:
    """What is done to a node, and how it is undone."""

    def __init__(self, name, cluster, victim):
        self.name, self.cluster, self.victim = name, cluster, victim
        self.others = [n for n, _ in cluster.nodes if n != victim]

    def happen(self):
        at = time.monotonic()
        if self.name == "kill":
            self.cluster.processes[self.victim].signal(signal.SIGKILL)
        elif self.name == "stop":
            self.cluster.processes[self.victim].signal(signal.SIGSTOP)
        elif self.name == "partition":
            self.cluster.partition([self.victim], self.others)
            at = time.monotonic()
        return at

    def end(self):
        if self.name == "kill":
            self.cluster.start(self.victim)
        elif self.name == "stop":
            self.cluster.processes[self.victim].signal(signal.SIGCONT)
        elif self.name == "partition":
            self.cluster.heal([self.victim], self.others)


@unittest.skipIf(REFUSED, REFUSED)
class FailuresTest(unittest.TestCase):
    def account(self, cluster, node):
        """Every request has exactly one end, and it is a good one: what ran on a dead engine was decided anew."""
        r = cluster.result(node)
        shown = {k: r[k] for k in ("requests", "completed", "rejected", "cancelled", "failed", "lost", "duplicated", "retried")}
        self.assertEqual((r["lost"], r["duplicated"], r["completed"]), (0, 0, r["requests"]), shown)
        return r

    def owners(self, cluster, nodes):
        """All of them name the same owner for every SIMULATOR under the same term, and each is owned once."""
        until = time.monotonic() + 30
        while True:
            seen = [cluster.status(n) for n in nodes]
            views = [{i["instance"]: (i["simulator_on"], i["term"]) for i in s.get("instances", [])} for s in seen]
            owned = sum(s.get("simulators_owned", 0) for s in seen)
            if views[0] and all(v == views[0] for v in views) and owned == len(views[0]):
                return views[0], sum(s["counters"]["refused_by_term"] for s in seen)
            self.assertLess(time.monotonic(), until, f"owners do not agree: {views}, {owned} owned")
            time.sleep(0.1)

    def decisions(self, cluster, log):
        """(time, event) of a recorded session, on this machine's clock; the session must replay alike."""
        done = subprocess.run([PROGRAM, "explain", "--log", log, "--json"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        told = json.loads(done.stdout)
        self.assertTrue(told["replayed_alike"], "the recorded session does not replay alike")
        return [(told["zero_s"] + e["at_s"], e) for e in told["events"]]

    def measure(self, what, failure, nodes, instances, victim, lost_instances, observer, loaded):
        """Times from the failure to: the observer (a SCHEDULER's node) has lost the node; its first decision for a living engine by a
        prediction; its first decision for which every candidate was predicted."""
        row = {"detected": [], "good": [], "fresh": [], "retried": 0, "requests": 0, "refused": 0}
        for _ in range(REPETITIONS):
            with hosts.Hosts(nodes, instances) as cluster:
                log = os.path.join(cluster.folder.name, "session.log")
                for node, _ in reversed(nodes):
                    if node != loaded:
                        cluster.start(node, more=("--record", log) if node == observer else ())
                client = cluster.start(loaded, LOAD, ("--record", log) if loaded == observer else ())
                for node, _ in nodes:
                    if node != loaded:
                        client.wait_line(f"connected to node {node}")
                time.sleep(1.5)
                bad = Failure(failure, cluster, victim)
                begun = bad.happen()
                detected = cluster.processes[observer].wait_line(f"lost node {victim}", begun)
                time.sleep(0.7)
                bad.end()
                cluster.processes[observer].wait_line(f"connected to node {victim}", begun)
                r = self.account(cluster, loaded)
                _, refused = self.owners(cluster, [n for n, _ in nodes if n != loaded])
                if observer != loaded:
                    cluster.processes[observer].signal(signal.SIGTERM)
                    cluster.processes[observer].process.wait(60)
                decided = [(t, e) for t, e in self.decisions(cluster, log) if e["event"] == "decided" and t >= begun]
                good = [t for t, e in decided if e["predicted"] and e["instance"] not in lost_instances]
                fresh = [t for t, e in decided if t >= detected and e["answered"] == e["candidates"]]
                self.assertTrue(good and fresh, "no good decision after the failure")
                row["detected"].append(detected - begun)
                row["good"].append(good[0] - begun)
                row["fresh"].append(fresh[0] - begun)
                row["retried"] += r["retried"]
                row["requests"] += r["requests"]
                row["refused"] += refused
        TABLE.append((what, row))
        return row

    def engines(self, failure, what):
        row = self.measure(what, failure, TOGETHER, 6, "gpu-1", {"i-2", "i-3"}, "router", "router")
        self.assertGreater(row["retried"], 0)

    def mirrors(self, failure, what):
        row = self.measure(what, failure, APART, 4, "mirrors", set(), "router", "router")
        self.assertEqual(row["retried"], 0)  # their engines live

    def scheduler(self, failure, what):
        row = self.measure(what, failure, TWO_SCHEDULERS, 4, "sched-0", set(), "sched-1", "front")
        self.assertGreater(row["retried"], 0)  # what it had begun was given to the other

    def test_engines_node_killed(self):
        self.engines("kill", "engines' node, kill -9")

    def test_engines_node_stopped_and_continued(self):
        self.engines("stop", "engines' node, SIGSTOP then SIGCONT")

    def test_engines_node_cut_off(self):
        self.engines("partition", "engines' node, links down then up")

    def test_simulators_node_killed(self):
        self.mirrors("kill", "SIMULATORs' node, kill -9")

    def test_simulators_node_stopped_and_continued(self):
        self.mirrors("stop", "SIMULATORs' node, SIGSTOP then SIGCONT")

    def test_simulators_node_cut_off(self):
        self.mirrors("partition", "SIMULATORs' node, links down then up")

    def test_scheduler_node_killed(self):
        self.scheduler("kill", "SCHEDULER's and SIMULATORs' node, kill -9")

    def test_scheduler_node_stopped_and_continued(self):
        self.scheduler("stop", "SCHEDULER's and SIMULATORs' node, SIGSTOP then SIGCONT")

    def test_scheduler_node_cut_off(self):
        self.scheduler("partition", "SCHEDULER's and SIMULATORs' node, links down then up")

    def test_only_the_way_from_scheduler_to_simulators_is_cut(self):
        """Their engines still reach them, so they stay the owners: decisions go on by the ledger until the link is back."""
        for _ in range(REPETITIONS):
            with hosts.Hosts(APART, 4) as cluster:
                router = cluster.start_all(load=LOAD)
                for node in ("mirrors", "gpu-0", "gpu-1"):
                    router.wait_line(f"connected to node {node}")
                time.sleep(1)
                begun = time.monotonic()
                cluster.partition(["router"], ["mirrors"])
                router.wait_line("lost node mirrors", begun)
                time.sleep(0.5)
                cluster.heal(["router"], ["mirrors"])
                router.wait_line("connected to node mirrors", begun)
                r = self.account(cluster, "router")
                self.assertEqual(r["retried"], 0)
                views, _ = self.owners(cluster, ["mirrors", "gpu-0", "gpu-1"])
                self.assertEqual({v for v in views.values()}, {("mirrors", 1)})

    def test_a_stalled_link_between_hosts_is_a_lost_node_and_heals(self):
        """Bytes wait and connections stay: only the silence tells."""
        for _ in range(REPETITIONS):
            with hosts.Hosts(TOGETHER, 6, proxied=[("gpu-1", "router")]) as cluster:
                router = cluster.start_all(load="rate=40,requests=240")
                for node in ("gpu-0", "gpu-1", "gpu-2"):
                    router.wait_line(f"connected to node {node}")
                time.sleep(1.5)
                begun = time.monotonic()
                cluster.tell_proxy("gpu-1", "router", "stall")
                detected = router.wait_line("lost node gpu-1", begun)
                time.sleep(0.7)
                cluster.tell_proxy("gpu-1", "router", "flow")
                router.wait_line("connected to node gpu-1", begun)
                self.account(cluster, "router")
                self.owners(cluster, ["gpu-0", "gpu-1", "gpu-2"])
                print(f"[measured] a stalled link between hosts, detected: {(detected - begun) * 1e3:.0f} ms")

    def test_a_delayed_link_between_hosts_delays_decisions_to_their_deadline_and_no_further(self):
        for _ in range(REPETITIONS):
            with hosts.Hosts(TOGETHER, 6, proxied=[("gpu-1", "router")], deadline="15ms") as cluster:
                log = os.path.join(cluster.folder.name, "session.log")
                cluster.tell_proxy("gpu-1", "router", "delay", 0.03)
                router = cluster.start_all(load=LOAD, more=("--record", log))
                self.assertEqual(self.account(cluster, "router")["retried"], 0)
                decided = [e for _, e in self.decisions(cluster, log) if e["event"] == "decided"]
                self.assertTrue(any(e["deadline_passed"] and e["answered"] == 4 for e in decided), "no decision by those that answered in time")
                self.assertFalse(router.process.poll())

    def test_a_host_that_restarts_in_a_loop_harms_nobody_else(self):
        with hosts.Hosts(TOGETHER, 6) as cluster:
            router = cluster.start_all(load="rate=40,requests=320")
            for node in ("gpu-0", "gpu-1", "gpu-2"):
                router.wait_line(f"connected to node {node}")
            for k in range(5):
                time.sleep(0.3 + 0.2 * k)
                cluster.processes["gpu-1"].signal(signal.SIGKILL)
                cluster.start("gpu-1")
            r = cluster.result("router")
            # A request that meets its second crash is given up and reported; it is never lost.
            self.assertEqual((r["lost"], r["duplicated"]), (0, 0))
            self.assertGreaterEqual(r["completed"], 300)
            self.owners(cluster, ["gpu-0", "gpu-1", "gpu-2"])

    def test_a_slow_node_delays_decisions_to_their_deadline_and_no_further(self):
        """Its process runs for 10 of every 50 ms: never silent for long enough to be lost."""
        for _ in range(REPETITIONS):
            with hosts.Hosts(APART, 4, deadline="10ms") as cluster:
                log = os.path.join(cluster.folder.name, "session.log")
                router = cluster.start_all(load=LOAD, more=("--record", log))
                router.wait_line("connected to node gpu-1")
                mirrors = cluster.processes["mirrors"]
                until = time.monotonic() + 3
                while time.monotonic() < until:
                    mirrors.signal(signal.SIGSTOP)
                    time.sleep(0.04)
                    mirrors.signal(signal.SIGCONT)
                    time.sleep(0.01)
                self.assertEqual(self.account(cluster, "router")["retried"], 0)
                decided = [e for _, e in self.decisions(cluster, log) if e["event"] == "decided"]
                self.assertTrue(any(e["deadline_passed"] for e in decided))
                self.assertTrue(any(not e["deadline_passed"] for e in decided))


def print_table():
    print("\n| What happens | detected ms | first good decision ms | fresh predictions ms | decided anew |"
          " refused by term | lost, failed, twice |\n|---|---|---|---|---|---|---|")
    for what, row in TABLE:
        print(f"| {what} | {quantiles(row['detected'])} | {quantiles(row['good'])} | {quantiles(row['fresh'])} | "
              f"{row['retried']} of {row['requests']} | {row['refused']} | 0 |")
    print(f"\nmedian / worst of {REPETITIONS}; heartbeat 50 ms, dead_after 400 ms, decision deadline 50 ms, load {LOAD}; "
          f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    arguments, rest = parser.parse_known_args()
    REPETITIONS = arguments.repetitions
    ended = unittest.main(argv=[sys.argv[0], *rest], verbosity=2, exit=False)
    if TABLE:
        print_table()
    sys.exit(not ended.result.wasSuccessful())
