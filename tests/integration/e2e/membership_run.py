#!/usr/bin/env python3
"""Membership measured on the running program: a fleet of emulated engines behind `foretoken serve` grows and shrinks under load; every engine of
a gateway and every node of a cluster is restarted in turn; an address is taken by another model. Prints one JSON object per part.

    bazel build //integration/cli:foretoken
    FORETOKEN_PROGRAM=$(bazel info bazel-bin)/integration/cli/foretoken PYTHONPATH=. tests/integration/e2e/membership_run.py

--small: the sizes of the test. What must hold in each part: no failed request, none given to a worker after it was told to leave."""
import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time

from tests.integration.e2e.cluster import Cluster, free_ports
from tests.integration.gateway import rig

# A step of 16 sequences takes 41 ms, an answer of 40 tokens 1.64 s: 9.7 requests/s per instance. Slow, so that two cores emulate sixteen.
TOKENS, STEP_S, SEQUENCE_S, SEQUENCES = 40, 0.025, 0.001, 16
PER_INSTANCE = SEQUENCES / (TOKENS * (STEP_S + SEQUENCES * SEQUENCE_S))

TOPOLOGY = """version: 1
slo: {{ ttft: 1s, tpot: 100ms }}
engines:
  slow:
    kind: emulated
    behaviour: vllm-0.32
    step_law: {{ step: 25ms, prefill_token: 20us, decode_seq: 1ms, kv_token: 1ns }}
    kv_blocks: 29186
    max_num_seqs: 16
pools:
  - name: default
    models: [m]
    instances:
      - {{ id: i, count: {count}, engine: slow }}
scheduler: {{ policy: {policy} }}
gateway: {{ listen: "127.0.0.1:{port}" }}
"""


class Failure(AssertionError):
    pass


def check(condition, message):
    if not condition:
        raise Failure(message)


class Load:
    """`foretoken load open` beside us; its report when it has ended."""

    def __init__(self, port, rate, seconds, model, tokens=TOKENS):
        self.process = subprocess.Popen(
            [rig.PROGRAM, "load", "open", "--url", f"http://127.0.0.1:{port}", "--rate", str(rate), "--seconds", str(seconds),
             "--model", model, "--tokens", str(tokens), "--prompt-bytes", "256", "--timeout", "120"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def running(self):
        return self.process.poll() is None

    def result(self):
        out, err = self.process.communicate(timeout=300)
        check(out, f"the load says nothing: {err}")
        return json.loads(out)


class Watch(threading.Thread):
    """What the gateway says of its workers, ten times a second: (time, {url: worker})."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.seen, self.ended = port, [], False
        self.start()

    def run(self):
        while not self.ended:
            with contextlib.suppress(OSError, ValueError):
                workers = rig.ask(self.port, "GET", "/workers").json()["workers"]
                self.seen.append((time.monotonic(), {w["url"]: w for w in workers}))
            time.sleep(0.1)

    def end(self):
        self.ended = True
        self.join()


def fair_share_after(seen, joined, begun, window=1.0):
    """Seconds from `begun` until the joined ones together had 90 % of their fair share: of what was assigned within the window before, and of
    what is under way."""
    assigned = held = None
    for at, workers in seen:
        if at < begun or not set(joined) <= set(workers):
            continue
        fair = 0.9 * len(joined) / len(workers)
        total = sum(w["under_way"] for w in workers.values())
        if held is None and total and sum(workers[url]["under_way"] for url in joined) >= fair * total:
            held = at - begun
        if assigned is None and at - window >= begun:
            then = [w for t, w in seen if t <= at - window][-1]
            gained = {url: w["requests"] - then.get(url, {"requests": 0})["requests"] for url, w in workers.items()}
            if sum(gained[url] for url in joined) >= fair * sum(gained.values()):
                assigned = at - begun
    return assigned, held


def instances(*arguments):
    done = subprocess.run([rig.PROGRAM, "instances", *arguments], capture_output=True, text=True, timeout=120)
    check(done.returncode == 0, f"instances {' '.join(arguments)}: {done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


@contextlib.contextmanager
def serving(count, policy="auto"):
    """(port, topology) of `serve` with its gateway."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/topology.yaml"
        (port,) = free_ports(1)
        with open(path, "w") as out:
            out.write(TOPOLOGY.format(count=count, policy=policy, port=port))
        process = subprocess.Popen([rig.PROGRAM, "serve", "--topology", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                   text=True)
        try:
            for line in process.stdout:
                if "Ctrl-C" in line:
                    break
            yield port, path
        finally:
            process.terminate()
            process.wait(60)
            process.stdout.close()


def good(load, what):
    result = load.result()
    check(result["ok"] == result["offered"] and not result["errors"], f"{what}: {result['offered']} offered, {result['ok']} well, {result['errors']}")
    return result


def grow_and_shrink(sizes, seconds, policy="auto"):
    """At 0.8 of the saturation of the smaller fleet at each change."""
    few, many, least = sizes
    out = {"part": "grow and shrink", "sizes": sizes, "policy": policy, "requests": 0}
    with serving(few, policy) as (port, topology):
        watch = Watch(port)
        load = Load(port, 0.8 * few * PER_INSTANCE, 2 * seconds, "m")
        time.sleep(seconds)
        begun = time.monotonic()
        joined = [instances("add", "--topology", topology, "--kind", "slow")[0]["url"] for _ in range(many - few)]
        result = good(load, "while it grew")
        out["requests"] += result["offered"]
        out["grown_e2e_p99_s"] = result["e2e_us"]["p99"] / 1e6
        out["fair_share_of_assignments_after_s"], out["fair_share_of_load_after_s"] = fair_share_after(watch.seen, joined, begun)
        check(out["fair_share_of_assignments_after_s"] is not None, "the joined ones never got 90 % of their share")
        confirmed = [at for at, workers in watch.seen if all(workers.get(u, {}).get("state") == "serving" for u in joined)]
        out["all_trusted_after_s"] = confirmed[0] - begun if confirmed else None

        result = good(Load(port, 0.8 * many * PER_INSTANCE, seconds, "m"), "at full size")
        out["requests"] += result["offered"]
        ids = {url: w["id"] for url, w in watch.seen[-1][1].items()}
        load = Load(port, 0.8 * least * PER_INSTANCE, 2 * seconds, "m")
        time.sleep(seconds / 2)
        leaving = list(ids)[:many - least]
        given = {}
        for url in leaving:
            given[url] = instances("remove", "--topology", topology, url)[0]["requests"]
        begun = time.monotonic()
        rig.wait_until(lambda: not set(leaving) & set(watch.seen[-1][1]), limit=120, what="all that were told to leave have left")
        out["left_after_s"] = time.monotonic() - begun
        late = {url: w["requests"] - given[url] for _, workers in watch.seen for url, w in workers.items()
                if url in given and w["state"] == "leaving" and w["requests"] > given[url]}
        check(not late, f"assigned to workers that were leaving: {late}")
        result = good(load, "while it shrank")
        out["requests"] += result["offered"]
        again = instances("add", "--topology", topology, "--kind", "slow")[0]
        check(again["id"] not in ids.values(), "a number was given to another")
        watch.end()
    out.update(failed=0, assigned_to_leaving=0)
    return out


def restart_engines(count, rate, per_engine):
    """Each engine of a gateway is drained, restarted on its address and used again; the last one's address is taken by another model."""
    out = {"part": "rolling restart of engines", "engines": count}
    engines = [rig.Engine(ttft="20ms", itl="10ms") for _ in range(count)]
    gateway = rig.Gateway(engines, policy="auto")
    try:
        load = Load(gateway.port, rate, per_engine * (count + 2), rig.MODEL, tokens=20)
        time.sleep(per_engine)
        used = []
        for k, engine in enumerate(engines):
            instances("drain", "--gateway", gateway.url, engine.url, "--wait", "60")
            engines[k] = engine.restarted()
            instances("uncordon", "--gateway", gateway.url, engine.url)
            used.append(rig.wait_until(lambda: engines[k].stats()["received"] > 0, limit=60))
        engine = engines[-1]
        instances("drain", "--gateway", gateway.url, engine.url, "--wait", "60")
        port = engine.port
        engine.close()
        engines[-1] = rig.Engine(port, "another-model", ttft="20ms")
        begun = time.monotonic()
        instances("uncordon", "--gateway", gateway.url, engine.url)
        workers = lambda: {w["url"]: w for w in rig.ask(gateway.port, "GET", "/workers").json()["workers"]}
        rig.wait_until(lambda: workers().get(engine.url, {}).get("models") == ["another-model"], limit=60)
        out["other_model_known_after_s"] = time.monotonic() - begun
        result = good(load, "while engines restarted")
        check(engines[-1].stats()["received"] == 0, "the other model was asked for the old one's")
        out.update(requests=result["offered"], failed=0, used_again_after_s=used, e2e_p99_s=result["e2e_us"]["p99"] / 1e6)
    finally:
        gateway.close()
        for engine in engines:
            engine.close()
    return out


def restart_nodes(rate, requests, pause):
    """Every node but the one whose client is ours is drained (SIGTERM), ends, and is started again."""
    nodes = [("router", ["scheduler"]), ("mirrors", ["simulator:i-*"])] + [(f"gpu-{k}", [f"engine:i-{2 * k}", f"engine:i-{2 * k + 1}"])
                                                                         for k in range(3)]
    out = {"part": "rolling restart of nodes", "nodes": len(nodes)}  # all but the client's
    with Cluster(nodes, 6) as cluster:
        cluster.start_all(load=f"rate={rate},requests={requests}")
        cluster.wait_status("router", lambda s: all(i["reachable"] and i["mirrored"] for i in s["instances"]))
        took = []
        for name, _ in nodes[1:]:
            begun = time.monotonic()
            cluster.processes[name].signal(15)
            cluster.processes[name].process.wait(120)
            cluster.start(name)
            cluster.wait_status("router", lambda s: all(i["reachable"] and i["mirrored"] for i in s["instances"]), timeout=60)
            took.append(time.monotonic() - begun)
            time.sleep(pause)
        running = cluster.processes["router"].process.poll() is None
        result = cluster.result("router", timeout=300)
    check(running, "the load ended before the last node was back: give it more requests")
    for key in ("failed", "rejected", "cancelled", "lost", "duplicated"):
        check(result[key] == 0, f"{key}: {result[key]}")
    out.update(requests=result["requests"], failed=0, retried=result["retried"], restart_took_s=took)
    return out


def cluster_fair_share(seen, joined, begun, window=1.0):
    """As fair_share_after, of {instance: requests under way} and {instance: tokens' steps} as nodes tell them."""
    for at, engines in seen:
        if at < begun or not set(joined) <= set(engines):
            continue
        total = sum(engines.values())
        if total and sum(engines[name] for name in joined) >= 0.9 * len(joined) / len(engines) * total:
            return at - begun
    return None


class ClusterWatch(threading.Thread):
    """What the nodes say of their engines, again and again: (time, {instance: requests under way})."""

    def __init__(self, cluster):
        super().__init__(daemon=True)
        self.cluster, self.seen, self.ended = cluster, [], False
        self.start()

    def run(self):
        while not self.ended:
            with contextlib.suppress(OSError, ValueError, KeyError, AssertionError):
                nodes = self.cluster.status().values()
                self.seen.append((time.monotonic(), {name: e["under_way"] for n in nodes for name, e in n.get("engines", {}).items()}))
            time.sleep(0.05)

    def end(self):
        self.ended = True
        self.join()


# The built-in load's mean request (azure-conv-2023) is 1,155 prompt and 211 output tokens: a step of 16 sequences takes 10 ms.
QUICK = """kind: emulated
    behaviour: vllm-0.32
    step_law: { step: 6ms, prefill_token: 20us, decode_seq: 250us, kv_token: 1ns }
    kv_blocks: 29186
    max_num_seqs: 16"""
PER_QUICK = 1 / (211 * 0.010 / 16 + 1155 * 20e-6)  # requests/s of one at saturation


class Clients:
    """Nodes that host nothing but a client, one for each load, whose SCHEDULERs are elsewhere."""

    def __init__(self, cluster, names):
        self.cluster, self.names, self.total, self.retried = cluster, list(names), 0, 0

    def start(self, rate, seconds):
        name = self.names.pop(0)
        self.cluster.start(name, f"rate={rate:.2f},requests={int(rate * seconds)}")
        return name

    def running(self, name):
        return self.cluster.processes[name].process.poll() is None

    def good(self, name):
        result = self.cluster.result(name, timeout=300)
        for key in ("failed", "rejected", "cancelled", "lost", "duplicated"):
            check(result[key] == 0, f"{name}: {key}: {result[key]}")
        self.total += result["requests"]
        return result


def all_there(count):
    return lambda s: len(s["instances"]) == count and all(i["reachable"] and i["mirrored"] and i["state"] == "serving" for i in s["instances"])


def restart_each(cluster, names, count, more):
    took = []
    for name in names:
        begun = time.monotonic()
        cluster.processes[name].signal(15)
        cluster.processes[name].process.wait(120)
        cluster.start(name, more=more.get(name, ()))
        for router in ("router-0", "router-1"):
            cluster.wait_status(router, all_there(count), timeout=60)
        took.append(time.monotonic() - begun)
    return took


def shrink_nodes(cluster, watch, leaving):
    begun = time.monotonic()
    for name in leaving:
        instances("remove", "--topology", cluster.path, name)
    told = time.monotonic()
    seen = lambda: [engines for at, engines in watch.seen if at > told + 0.3]  # a look takes a while
    rig.wait_until(lambda: len(seen()) > 0, limit=60, what="a look at the engines")
    given = {name: seen()[0].get(name, 0) for name in leaving}
    rig.wait_until(lambda: not set(leaving) & set(seen()[-1]), limit=120, what="all that were told to leave have left")
    late = {name: engines[name] for engines in seen() for name in leaving if engines.get(name, 0) > given[name]}
    check(not late, f"assigned to instances that were leaving: {late}, had {given}")
    return time.monotonic() - begun


def grow_nodes(sizes, gpus, seconds):
    """Instances of nodes join at run time at 0.8 of the saturation of the smaller fleet at each change, every node restarts, and they leave; what
    the SCHEDULERs did is recorded, and played again."""
    few, many, least = sizes
    first = [f"i-{k}" for k in range(few)]
    nodes = [("router-0", ["scheduler"]), ("router-1", ["scheduler"])] + [(f"gpu-{k}", first[k::gpus]) for k in range(gpus)]
    restarted = [name for name, _ in nodes]
    nodes += [(f"client-{k}", ["gateway"]) for k in range(3)]
    out = {"part": "instances of nodes", "sizes": sizes, "nodes": len(nodes)}
    with Cluster(nodes, few, engine=QUICK) as cluster:
        logs = [f"{cluster.folder.name}/{k}.log" for k in range(2)]
        for name in restarted:
            cluster.start(name, more=("--record", logs[int(name[-1])], "--record-sync") if name.startswith("router") else ())
        clients = Clients(cluster, [n for n, _ in nodes if n.startswith("client")])
        cluster.wait_status("router-0", all_there(few))
        load = clients.start(0.8 * few * PER_QUICK, 2 * seconds)
        time.sleep(seconds)
        watch = ClusterWatch(cluster)
        begun = time.monotonic()
        joined = [instances("add", "--topology", cluster.path, "--kind", "e")[0]["instance"] for _ in range(many - few)]
        out["adding_took_s"] = time.monotonic() - begun
        rig.wait_until(lambda: cluster_fair_share(watch.seen, joined, begun), limit=120, what="90 % of their share for those that joined")
        out["fair_share_of_load_after_s"] = cluster_fair_share(watch.seen, joined, begun)
        check(clients.running(load), "the load ended before the joined ones had their share: give it more requests")
        clients.good(load)

        load = clients.start(0.8 * many * PER_QUICK, 4 * seconds)
        time.sleep(seconds / 2)
        more = {f"router-{k}": ("--record", logs[k] + ".2", "--record-sync") for k in range(2)}
        out["restart_took_s"] = restart_each(cluster, restarted, many, more)
        check(clients.running(load), "the load ended before the last node was back: give it more requests")
        out["restarted_retried"] = clients.good(load)["retried"]

        load = clients.start(0.8 * least * PER_QUICK, 2 * seconds)
        time.sleep(seconds / 2)
        leaving = (first + joined)[:many - least]
        out["left_after_s"] = shrink_nodes(cluster, watch, leaving)
        check(clients.running(load), "the load ended before the last had left: give it more requests")
        for name, node in cluster.status().items():
            names = sorted(i["instance"] for i in node.get("instances", []))
            check("error" in node or names == sorted(set(first + joined) - set(leaving)), f"{name} knows {names}")
        again = instances("add", "--topology", cluster.path, "--kind", "e", leaving[0])[0]
        check(again["id"] >= many, "a number was given to another")
        clients.good(load)
        watch.end()
        for name in restarted:  # so that the logs are whole
            cluster.processes[name].signal(15)
        for name in restarted:
            cluster.processes[name].process.wait(60)
        out["decisions_played_alike"] = 0
        for log in [*logs, *(log + ".2" for log in logs)]:
            played = subprocess.run([rig.PROGRAM, "replay", "--log", log, "--json"], capture_output=True, text=True, timeout=300)
            check(played.returncode == 0, f"the session is not played alike: {played.stdout} {played.stderr}")
            out["decisions_played_alike"] += json.loads(played.stdout)["identical"]
        out.update(requests=clients.total, failed=0, assigned_to_leaving=0)
    return out


def run(small):
    if small:
        yield grow_and_shrink((2, 4, 1), 4)
        yield restart_engines(3, 40, 1)
        yield grow_nodes((2, 4, 1), 2, 5)
        yield restart_nodes(20, 400, 0.5)
    else:
        yield grow_and_shrink((8, 16, 6), 15)
        yield restart_engines(8, 100, 2)
        yield grow_nodes((8, 16, 6), 4, 15)
        yield restart_nodes(30, 2400, 2)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--small", action="store_true")
    for part in run(arguments.parse_args().small):
        print(json.dumps(part, default=lambda x: round(x, 3)), flush=True)


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"membership: {failure}")
