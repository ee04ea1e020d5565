#!/usr/bin/env python3
"""An open-loop load on engines of different speed behind the gateway, one run after another: what the gateway predicted against what came,
and the tails under several policies. The engines are two real llama-servers, or emulated ones behind HTTP (--topology). Prints one JSON
line per run and a summary.

    integration/engines/llama/measure_routing.py --minutes 10 --runs 5 --policies min_e2e round_robin least_requests

Each run gets the same arrivals, prompts and lengths (by its seed), fresh engines and a fresh gateway; policies take turns within a run.
With --gateways N each of N gateways sees a part of the traffic; with --foreign S so much more goes to the engines past all gateways.
Needs `./foretoken` built and the engine set up (llama_engine.py setup).
"""
import argparse
import asyncio
import json
import random
import re
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import llama_engine  # noqa: E402: beside this file

# Slow enough for two engines, their clients and the gateway to share two cores without the machine deciding: microseconds.
LAWS = ("24000,60,400", "60000,150,1000")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def workload(seed, rate, seconds, whole_share):
    """[(arrival, prompt tokens, output tokens, stream)]: Poisson, prompts of 16..1,200 tokens, log-uniform, outputs of 8..96."""
    prng = random.Random(seed)
    out, at = [], 0.0
    while (at := at + prng.expovariate(rate)) < seconds:
        out.append((at, round(16 * (1_200 / 16) ** prng.random()), prng.randint(8, 96), prng.random() >= whole_share))
    return out


class Run:
    def __init__(self, ports, foreign_ports, model, seed, options):
        self.ports, self.foreign_ports, self.model, self.options = ports, foreign_ports, model, options
        self.prng, self.rows = random.Random(seed), []

    async def ask(self, prompt, output, stream):
        foreign = self.prng.random() < self.options.foreign / (1 + self.options.foreign)
        port = self.prng.choice(self.foreign_ports if foreign else self.ports)
        tokens = [self.prng.randint(300, 4_000) for _ in range(prompt)]
        body = json.dumps({"model": self.model, "prompt": tokens, "max_tokens": output, "stream": stream, "ignore_eos": True,
                           "cache_prompt": False}).encode()
        sent = time.monotonic()
        row = {"stream": stream, "prompt": prompt, "output": output}
        if not foreign:
            self.rows.append(row)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        try:
            writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nConnection: close\r\nContent-Type: application/json\r\n"
                         b"Content-Length: %d\r\n\r\n" % len(body) + body)
            row["status"] = int((await reader.readline()).split()[1])
            while line := (await reader.readline()).strip():
                name, _, value = line.decode().partition(":")
                if name.lower().startswith("x-foretoken-"):
                    row[name.lower().removeprefix("x-foretoken-")] = value.strip()
            tail = b""
            while data := await reader.read(1 << 16):
                if "first" not in row and (not stream or b"data: " in data):
                    row["first"] = time.monotonic() - sent
                tail = (tail + data)[-200:]
            row["e2e"] = time.monotonic() - sent
            row["complete"] = not stream or b"[DONE]" in tail
        except (OSError, IndexError, ValueError) as problem:
            row["error"] = repr(problem)
        finally:
            writer.close()

    async def go(self, requests):
        begun = time.monotonic()
        tasks = []
        for at, *request in requests:
            await asyncio.sleep(max(0.0, begun + at - time.monotonic()))
            tasks.append(asyncio.create_task(self.ask(*request)))
        await asyncio.wait_for(asyncio.gather(*tasks), timeout=self.options.minutes * 60 + 300)


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))] if values else None


def ranks(values):
    order = sorted(range(len(values)), key=values.__getitem__)
    out = [0.0] * len(values)
    for rank, i in enumerate(order):
        out[i] = float(rank)
    return out


def spearman(a, b):
    return statistics.correlation(ranks(a), ranks(b)) if len(a) > 2 else None


def judge(rows):
    """Predicted against actual, for what was predicted; milliseconds and shares."""
    out = {}
    for what, key, field in (("ttft", "predicted-ttft-ms", "first"), ("e2e", "predicted-e2e-ms", "e2e")):
        pairs = [(float(r[key]) / 1e3, r[field]) for r in rows if key in r and r.get("complete") and (what == "e2e" or r["stream"])]
        if not pairs:
            continue
        errors = [abs(p / a - 1) for p, a in pairs]
        out[what] = {"count": len(pairs), "spearman": spearman([p for p, _ in pairs], [a for _, a in pairs]),
                     "ape_p50": quantile(errors, .5), "ape_p95": quantile(errors, .95),
                     "bias": sum(p for p, _ in pairs) / sum(a for _, a in pairs) - 1}
    return out


class Engines:
    """Two llama-servers, or the emulated instances of a topology."""

    def __init__(self, options):
        self.servers, self.emulated = [], None
        if options.topology:
            self.emulated = subprocess.Popen([options.program, "serve", "--topology", options.topology, "--openai"], stdout=subprocess.PIPE,
                                             text=True)
            self.urls = []
            while "Ctrl-C" not in (line := self.emulated.stdout.readline()):
                if found := re.match(r"  \S+ at (http://\S+)$", line):
                    self.urls.append(found.group(1))
        else:
            self.servers = [llama_engine.Server(options.folder, free_port(), law).wait() for law in LAWS]
            self.urls = [server.url for server in self.servers]

    def close(self):
        for server in self.servers:
            server.close()
        if self.emulated:
            self.emulated.terminate()
            self.emulated.wait()


def port_of(url):
    return int(url.rsplit(":", 1)[1])


def summary(rows, policy, seed):
    settled = rows[len(rows) // 10:]  # the gateway starts without knowing the engines
    good = [r for r in settled if r.get("complete") and r.get("status") == 200]
    names = sorted({r.get("instance", "?") for r in good})
    quantiles = ("0.5", "0.95", "0.99")
    return {"policy": policy, "seed": seed, "requests": len(rows), "failed": sum(not r.get("complete") for r in rows),
            "ttft": {q: quantile([r["first"] for r in good if r["stream"]], float(q)) for q in quantiles},
            "e2e": {q: quantile([r["e2e"] for r in good], float(q)) for q in quantiles},
            "prediction": judge(good), "by_engine": [sum(r.get("instance", "?") == n for r in good) for n in names],
            "load_average": float(Path("/proc/loadavg").read_text().split()[0])}


def measure(policy, seed, options):
    engines = Engines(options)
    gateways = []
    try:
        for _ in range(options.gateways):
            gateways.append(subprocess.Popen([options.program, "gateway", "--port", "0", "--prometheus-port", "0", "--policy", policy,
                                              "--decision-headers", "--worker-urls", *engines.urls], stdout=subprocess.PIPE, text=True))
        ports = [port_of(gateway.stdout.readline()) for gateway in gateways]
        with urllib.request.urlopen(engines.urls[0] + "/v1/models") as answer:
            model = json.load(answer)["data"][0]["id"]
        run = Run(ports, [port_of(url) for url in engines.urls], model, seed, options)
        rate = options.rate * (1 + options.foreign)
        asyncio.run(run.go(workload(seed, rate, options.minutes * 60, options.whole_share)))
        return summary(run.rows, policy, seed)
    finally:
        for gateway in gateways:
            gateway.terminate()
            gateway.wait()
        engines.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rate", type=float, default=4.5, help="requests per second; the two engines do about 8")
    parser.add_argument("--whole-share", type=float, default=0.0, help="share of requests that do not stream")
    parser.add_argument("--gateways", type=int, default=1)
    parser.add_argument("--foreign", type=float, default=0.0, help="requests past the gateways, as a share of those through them")
    parser.add_argument("--topology", help="emulated engines of this topology instead of llama-servers")
    parser.add_argument("--policies", nargs="+", default=["min_e2e", "round_robin", "least_requests"])
    parser.add_argument("--program", default=str(llama_engine.ROOT / ".cache" / "foretoken" / "foretoken"))
    parser.add_argument("--folder", default=llama_engine.DEFAULT_FOLDER)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rows = []
    for run in range(options.runs):
        for policy in options.policies:
            rows.append(measure(policy, options.seed + run, options))
            print(json.dumps(rows[-1]), flush=True)
    for policy in options.policies:
        mine = [r for r in rows if r["policy"] == policy]
        for what in ("ttft", "e2e"):
            cells = []
            for q in ("0.5", "0.95", "0.99"):
                values = [r[what][q] for r in mine if r[what][q] is not None]
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                cells.append(f"p{float(q) * 100:.0f} {statistics.mean(values) * 1e3:7.0f} +- {spread * 1e3:4.0f} ms")
            print(f"{policy:15} {what:4} {'  '.join(cells)}  ({len(mine)} runs)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
