#!/usr/bin/env python3
"""Predictors against the executable specification run on from the same state. The specification serves a random case; what it
does reaches the predictors as messages; at each arrival they are asked. The truth of the k-th request is the specification's run
over the requests up to the k-th: the same run up to that instant, and nothing arrives later. Noise is off, lengths are known.
The reference has to be right to the nanosecond; the timeline's errors are printed by class.
FORETOKEN_CASES: how many; FORETOKEN_SEED: only that one."""
import contextlib
import io
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile

from tests.engine_oracle import compare, fuzz_cases, refsim

PREDICTORS = os.environ.get("PREDICT_ALONE", "tests/engine_oracle/predict_alone")
MAX_STEPS = 3000
LAW = (4_000_000, 30_000, 50_000)  # ns: a step, a prefill token, a decode sequence


def chat_case(seed):
    """A case of a chat service's proportions on a small engine: the timeline's own ground."""
    draw = random.Random(seed)
    size = 16
    shared = draw.random() < 0.5
    prefixes = [(f"s{i}", 16 * draw.randint(4, 30)) for i in range(4)]
    rows, now = [], 0.0
    rate = draw.choice([2, 5, 10])
    for i in range(30):
        now += draw.expovariate(rate)
        parts = [list(draw.choice(prefixes))] if shared and draw.random() < 0.7 else []
        parts.append([f"u{i}", max(1, int(draw.lognormvariate(5.3, 0.8)))])
        rows.append(dict(id=f"r{i}", arrival=round(now, 6), prompt_len=sum(n for _, n in parts), priority=0,
                         output_len=max(1, int(draw.lognormvariate(3.5, 0.8))), segments=parts))
    need = max(-(-(r["prompt_len"] + r["output_len"]) // size) for r in rows) + 2
    return rows, dict(max_num_seqs=draw.choice([8, 16, 64]), max_num_batched_tokens=draw.choice([512, 1024, 2048]),
                      num_gpu_blocks=draw.choice([int(need * 1.2), need * 2, need * 20]), block_size=size, prefix_caching="on" if shared
                      else draw.choice(["on", "off"]), async_scheduling=draw.choice(["on", "off"]),
                      stop=draw.choice(["max_tokens", "eos"]), max_model_len=131072)


def tight_case(seed):
    """The specification's own random cases, with the rules of newer versions. Ids sort as they count: at one instant, and with one
    priority, requests are taken in the order of their ids, and a predictor takes the one it is asked about last."""
    rows, arguments = fuzz_cases.case(seed)
    fuzz_cases.newer(seed, arguments)
    name = lambda text: text.replace("out:r", "") if text.startswith("out:r") else None
    for row in rows:
        row["id"] = f"r{int(row['id'][1:]):03d}"
        row["segments"] = [[f"out:r{int(name(s)):03d}" if name(s) else s, n] for s, n in row["segments"]]
    return rows, dict(arguments, cpu=0)


def specification(rows, arguments, folder):
    """(step records, request records by id), or None: it never ends."""
    path = folder + "/trace.jsonl"
    with open(path, "w") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
    law = ",".join(repr(ns * 1e-9) for ns in LAW) + ",0"
    printed = io.StringIO()
    flags = compare.flags(dict(arguments, step_time=law, max_steps=MAX_STEPS, empty=True))
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()) as complaint:
            refsim.main(["--trace", path, *flags])
    except SystemExit:
        return None
    if complaint.getvalue():
        return None
    lines = [json.loads(line) for line in printed.getvalue().splitlines()]
    return [x for x in lines if x["type"] == "step"], {x["id"]: x for x in lines if x["type"] == "request"}


def ns(seconds):
    return round(seconds * 1e9)


class Messages:
    """The specification's records as the messages of an instance."""

    def __init__(self, rows, steps, arguments):
        self.number = {row["id"]: i for i, row in enumerate(sorted(rows, key=lambda r: r["id"]), 1)}
        self.decoding, self.outputs, self.running = set(), {}, []
        self.held_back = []  # preempted by batches without a token, told with the next one that has any
        self.made, self.count = [], 0
        self.usable = arguments["num_gpu_blocks"] - 1
        # In order: at one instant a result comes before the next batch is composed.
        events = [(ns(s["sched_t"]), 1, i, s) for i, s in enumerate(steps)]
        events += [(ns(s["end"]), 0, i, s) for i, s in enumerate(steps) if s["items"]]
        composed, waiting = {}, 0
        for at, is_schedule, i, step in sorted(events, key=lambda e: e[:3]):
            if is_schedule:
                composed[i] = self.compose(step)
                waiting = step["waiting"]
            else:
                self.made.append((at, self.complete(composed.pop(i), step, waiting)))

    def compose(self, step):
        admitted = [[self.number[x["id"]], x["cached"], resumed] for key, resumed in (("new", False), ("resumed", True)) for x in step[key]]
        fresh = {x["id"] for key in ("new", "resumed") for x in step[key]}
        for one in step["preempted"]:
            self.running.remove(one)
            self.decoding.discard(one)
        self.held_back += [self.number[x] for x in step["preempted"]]
        # In scheduling order, new and resumed mixed.
        order = {x["id"]: k for k, x in enumerate(step["items"])}
        admitted.sort(key=lambda a: next(k for x, k in order.items() if self.number[x] == a[0]))
        self.running += [x["id"] for x in step["items"] if x["id"] in fresh]
        busy = {x["id"] for x in step["items"]}
        decodes = [x for x in step["items"] if not x["prefill"]]
        message = dict(step=0, scheduled=ns(step["sched_t"]), start=ns(step["start"]), end=ns(step["end"]),
                       prefill_tokens=step["prefill_tokens"], prefill_seqs=len(step["items"]) - len(decodes),
                       decode_seqs=len(decodes), decode_kv_tokens=sum(x["n"] + x["computed"] for x in decodes),
                       chunks=[[self.number[x["id"]], x["n"], x["computed"], x["samples"]] for x in step["items"]
                               if x["prefill"] or x["id"] in fresh],
                       admitted=admitted, preempted=[], skipped=[self.number[x] for x in self.running if x in self.decoding - busy])
        self.decoding |= {x["id"] for x in step["items"] if x["samples"]}
        if step["items"]:
            message["preempted"], self.held_back = self.held_back, []
        return message

    def complete(self, message, step, waiting):
        for x in step["items"]:
            if x["samples"]:
                self.outputs[x["id"]] = self.outputs.get(x["id"], 0) + 1
        for one in step["finished"]:
            self.decoding.discard(one)
            if one in self.running:
                self.running.remove(one)
        message.update(step=self.count, finished=[[self.number[x], self.outputs[x]] for x in step["finished"]],
                       running=len(self.running), waiting=waiting, free_blocks=step["free_after_update"], total_blocks=self.usable)
        self.count += 1
        return message


def contents(segments, number):
    """Names of token content as numbers: a request's output is 2 * its number + 1, anything else lies beyond these."""
    def of(name):
        if name.startswith("out:"):
            return 2 * number[name[4:]] + 1
        return 10**9 + int.from_bytes(name.encode(), "big") % 2**40
    return [[of(name), length] for name, length in segments]


def document(rows, steps, a, predictors):
    messages = Messages(rows, steps, a)
    on = lambda key, default="off", value="on": a.get(key, default) == value
    config = dict(max_num_seqs=a["max_num_seqs"], max_num_batched_tokens=a["max_num_batched_tokens"], num_gpu_blocks=a["num_gpu_blocks"],
                  block_size=a["block_size"], max_model_len=a["max_model_len"], prefix_caching=on("prefix_caching", "on"),
                  async_scheduling=on("async_scheduling"), reserve_full_isl=on("reserve_full_isl", "on"),
                  priority=on("policy", "fcfs", "priority"), long_prefill_token_threshold=a.get("long_prefill_token_threshold", 0),
                  long_prefill_adaptive=on("long_prefill_adaptive"), lone_long_prefill_full=on("lone_long_prefill", "cap", "full"),
                  max_num_active_seqs=a.get("max_num_active_seqs", 0), self_preempt_continues=on("self_preempt", "break", "continue"),
                  prefill_schedule_interval=a.get("prefill_schedule_interval", 1), watermark=a.get("watermark", 0),
                  stop_at_eos=on("stop", "max_tokens", "eos"))
    arrivals = [(ns(r["arrival"]), 1, k, dict(id=messages.number[r["id"]], at=ns(r["arrival"]), priority=r["priority"],
                                             prompt=r["prompt_len"], output=r["output_len"],
                                             segments=contents(r["segments"], messages.number))) for k, r in enumerate(rows)]
    # At one instant a step's result comes before an arrival.
    events = [(at, 0, k, m) for k, (at, m) in enumerate(messages.made)] + arrivals
    return dict(config=config, law=LAW, predictors=predictors, events=[e[3] for e in sorted(events, key=lambda e: e[:3])])


def classes(rows, a):
    yield "async" if a.get("async_scheduling") == "on" else "sync"
    deep = 2 * max(-(-(r["prompt_len"] + r["output_len"]) // a["block_size"]) for r in rows) + 8
    full = a["num_gpu_blocks"] < deep
    named = [name for r in rows for name, _ in r["segments"]]
    shares = a.get("prefix_caching", "on") == "on" and len(set(named)) < len(named)
    yield ("short of KV" if full else "ample KV") + (", shared prefixes" if shares else "")


def check(job):
    """(requests compared, what the reference has wrong, [(classes, timeline's TTFT error, E2E error)]); None: a case without end."""
    make, seed = job
    rows, arguments = (tight_case if make == "tight" else chat_case)(seed)
    rows.sort(key=lambda r: r["arrival"])
    with tempfile.TemporaryDirectory() as folder:
        whole = specification(rows, arguments, folder)
        if whole is None:
            return None
        asked = json.dumps(document(rows, whole[0], arguments, ["reference", "timeline"]))
        done = subprocess.run([PREDICTORS], input=asked, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            return 0, f"predict_alone: exit code {done.returncode}: {done.stderr.strip()}", []
        said = json.loads(done.stdout)
        wrong, errors, compared = "", [], 0
        for k, row in enumerate(rows):
            truth = specification(rows[:k + 1], arguments, folder)
            came = truth[1].get(row["id"]) if truth else None
            if came is None or came["finish"] is None:
                continue
            compared += 1
            ttft, e2e = (ns(came[key]) - ns(row["arrival"]) for key in ("first_token", "finish"))
            if said["reference"][k] != [ttft, e2e] and not wrong:
                wrong = f"{row['id']}: TTFT, E2E {ttft}, {e2e} ns; the reference said {said['reference'][k]}"
            t = said["timeline"][k]
            errors.append((list(classes(rows, arguments)), abs(t[0] / ttft - 1), abs(t[1] / e2e - 1)))
    return compared, wrong, errors


def quantile(values, q):
    return sorted(values)[min(len(values) - 1, int(q * len(values)))] if values else 0.0


def report(name, outcomes):
    errors = [e for _, _, case in outcomes for e in case]
    for label in ["all", *sorted({c for e in errors for c in e[0]})]:
        mine = [e for e in errors if label == "all" or label in e[0]]
        figures = [quantile([e[i] for e in mine], q) for i in (1, 2) for q in (.5, .95, .99)]
        print(f"  timeline, {name}, {label}: {len(mine)} requests, TTFT error p50/p95/p99 " + "/".join(f"{x:.4f}" for x in figures[:3]) +
              ", E2E " + "/".join(f"{x:.4f}" for x in figures[3:]))


def main():
    count = int(os.environ.get("FORETOKEN_CASES", "0")) or 16
    first = int(os.environ.get("FORETOKEN_EXTRA_SEED", "0"), 0) % 10**9
    seeds = [int(os.environ["FORETOKEN_SEED"], 0)] if os.environ.get("FORETOKEN_SEED") else range(first, first + count)
    failed = False
    for name in ("tight", "chat"):
        with multiprocessing.Pool(os.cpu_count() or 1) as pool:
            results = pool.map(check, [(name, seed) for seed in seeds], chunksize=2)
        outcomes = [o for o in results if o is not None]
        compared = sum(o[0] for o in outcomes)
        print(f"{name}: seeds {seeds[0]} to {seeds[-1]}, {len(results) - len(outcomes)} without end, {compared} requests compared")
        report(name, outcomes)
        for seed, outcome in zip(seeds, results):
            if outcome is not None and outcome[1]:
                print(f"{name} seed {seed}: {outcome[1]}\nto repeat: FORETOKEN_SEED={seed} bazel test "
                      "//tests/engine_oracle:predictors_test --test_env=FORETOKEN_SEED")
                failed = True
                break
        failed |= compared == 0
        # Its own ground: what it is measured by (predictors.md).
        if name == "chat" and len(seeds) > 1:
            ample = [e for _, _, case in outcomes for e in case if "ample KV" in e[0]]
            failed |= quantile([e[1] for e in ample], .95) > 0.01 or quantile([e[2] for e in ample], .95) > 0.01
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
