#!/usr/bin/env python3
"""The records of foretoken_vllm, sent as frames and read again, against the state of the real scheduler that they describe.

A small mirror follows the frames by the rules of the schema (stream.capnp, BatchTrace: what is not listed is implied). Behind every
step it must hold what vLLM's scheduler holds. Random workloads print their seed. FORETOKEN_VLLM names a python that has vLLM
(integration/engines/vllm/vllm_engine.py makes one); without it the test says so and passes.
"""
import json
import os
import pathlib
import random
import subprocess
import sys
import unittest

PYTHON = os.environ.get("FORETOKEN_VLLM")
if __name__ == "__main__" and PYTHON and pathlib.Path(sys.executable) != pathlib.Path(PYTHON):
    os.environ["HOME"] = os.environ.get("TEST_TMPDIR", os.environ.get("HOME", "/"))  # vLLM keeps caches there
    os.execv(PYTHON, [PYTHON, __file__, *sys.argv[1:]])

HERE = pathlib.Path(__file__).absolute().parent
ROOT = HERE.parents[3]
sys.path[:0] = [str(HERE), str(ROOT / "integration" / "engines" / "vllm" / "python")]
SHADOW = os.environ.get("LIVE_SHADOW_ALONE", str(HERE / "live_shadow_alone"))
CASES = pathlib.Path(os.environ.get("FORETOKEN_SHARED", ROOT.parent / "shared")) / "oracle" / "cases"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

try:
    import foretoken_vllm.traced
    import foretoken_vllm.wire as wire
    import real_scheduler
    from foretoken_vllm.ids import FOREIGN, number_of

    MISSING = ""
except ImportError as error:
    MISSING = os.environ.get("FORETOKEN_VLLM_MISSING") or f"no vLLM to test with ({error}): ./foretoken test --real-engines sets it up"


class Mirror:
    """Follows frames. requests: number -> [prompt, computed, generated, admitted, waiting]."""

    def __init__(self):
        self.next, self.step, self.running, self.waiting, self.free = 0, 0, {}, {}, None

    def read(self, frame):
        with wire.schema().Frame.from_bytes(frame) as received:
            self._apply(received.stream)

    def _apply(self, m):
        assert m.seq == self.next, f"seq {m.seq}, expected {self.next}"
        self.next += 1
        body = m.body.which()
        if body == "arrived":
            self.waiting[m.body.arrived.request] = [m.body.arrived.promptTokens, 0, 0]
        elif body == "aborted":
            self.running.pop(m.body.aborted.request, None)
            self.waiting.pop(m.body.aborted.request, None)
        elif body == "syncBatchResult":
            self._step(m.body.syncBatchResult)

    def _step(self, s):
        assert s.step == self.step, f"step {s.step}, expected {self.step}"
        self.step += 1
        for r in s.preempted:
            if r in self.running:  # else aborted since
                self.waiting[r] = self.running.pop(r)
                self.waiting[r][1] = 0
        for a in s.admitted:
            state = self.waiting.pop(a.request, None)
            if state is not None:  # else aborted while its batch was in flight
                state[1] = a.cached
                self.running[a.request] = state
        listed = {c.request for c in s.chunks} | set(s.skipped)
        for c in s.chunks:
            if c.request in self.running:
                r = self.running[c.request]
                assert r[1] == c.computed, f"{c.request}: computed {c.computed}, expected {r[1]}"
                r[1] += c.tokens
                r[2] += c.samples
        for number, r in self.running.items():
            if number not in listed and r[1] >= r[0]:
                r[1] += 1
                r[2] += 1
        for f in s.finished:
            generated = self.running.pop(f.request)[2]
            assert generated == f.outputTokens, f"{f.request}: {f.outputTokens} tokens, expected {generated}"
        self.free, self.counts = s.freeBlocks, (s.running, s.waiting)


class _Held:
    """A sink that encodes at once, for a test on one thread."""

    def __init__(self, scheduler, mirror):
        self.encoder, self.mirror, self.numbers, self.wants, self.sent = None, mirror, 0, False, []
        self.encoder = wire.Encoder(dict(foretoken_vllm.traced.hello_of(scheduler), instance="3"))
        self.put(dict(self.encoder.hello))

    def put(self, record):
        count = len(record["ended"]) if record["type"] == "free" else 1
        record["n"], record["numbers"] = self.numbers, range(self.numbers, self.numbers + count)
        self.numbers += count
        for frame in self.encoder.frames(record, 0):
            self.mirror.read(frame)
            self.sent.append(frame)

    def snapshot_wanted(self):
        wanted, self.wants = self.wants, False
        return wanted

    def close(self):
        pass


def check_snapshot(test, scheduler):
    """A snapshot says what the scheduler holds, in its order."""
    tracer = scheduler._foretoken
    record = dict(foretoken_vllm.traced.snapshot_of(tracer), n=7)
    [frame] = tracer.stream.encoder.frames(record, 0)
    with wire.schema().Frame.from_bytes(frame) as received:
        s = received.stream.body.snapshot
        for got, held in ((s.running, scheduler.running), (s.waiting, foretoken_vllm.traced._waiting_requests(scheduler))):
            test.assertEqual([(g.request, g.promptTokens, g.computedTokens, g.generatedTokens) for g in got],
                             [(number_of(r.request_id), r.num_prompt_tokens, r.num_computed_tokens, r.num_output_tokens) for r in held])
        test.assertTrue(all(g.cachedTokens <= max(g.promptTokens + g.generatedTokens - 1, 0) for g in s.running))
        test.assertEqual((s.lastSeq, s.nextStep), (7, tracer.steps - len(tracer.pending)))
        test.assertEqual(s.freeBlocks, scheduler.kv_cache_manager.block_pool.get_num_free_blocks())


def follow(test, args, trace, abort=lambda step: None, snapshots=None):
    """snapshots: after how many steps each, on average, the stream has one."""
    os.environ.pop("FORETOKEN_SYNC", None)
    scheduler, mirror = real_scheduler.make_scheduler(args), Mirror()
    tracer = scheduler._foretoken
    tracer.stream = _Held(scheduler, mirror)
    checked, told, rng = [0], [0], random.Random(len(trace))

    def check(in_flight):
        test.assertIsNotNone(tracer.stream, "the plugin disabled itself")
        running = {number_of(r.request_id): r for r in scheduler.running}
        pool = scheduler.kv_cache_manager.block_pool
        if mirror.step > told[0]:  # a step without tokens is not reported, nor what an abort behind the last one left
            told[0] = mirror.step
            test.assertEqual(mirror.free, pool.get_num_free_blocks())
            test.assertEqual(mirror.counts, (len(scheduler.running), scheduler.get_request_counts()[1]))
        checked[0] += 1
        if snapshots and rng.random() * snapshots < 1:
            tracer.stream.wants = True
        if checked[0] % 7 == 0:
            check_snapshot(test, scheduler)
        if in_flight:  # the scheduler is a batch ahead of what has been reported
            return
        test.assertEqual(set(mirror.running), set(running))
        for number, r in running.items():
            test.assertEqual(mirror.running[number], [r.num_prompt_tokens, r.num_computed_tokens, r.num_output_tokens], number)
        waiting = {number_of(r.request_id) for r in foretoken_vllm.traced._waiting_requests(scheduler)}
        test.assertEqual(set(mirror.waiting), waiting)

    real_scheduler.run(scheduler, args, trace, check, abort)
    test.assertEqual((mirror.running, mirror.waiting), ({}, {}))
    return checked[0], b"".join(tracer.stream.sent)


def shadow(frames, *arguments):
    """What LiveShadow makes of a stream."""
    done = subprocess.run([SHADOW, *map(str, arguments)], input=frames, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def conversations(rng, count, limit):
    """Requests of several turns: a later prompt holds what the earlier one said and what was answered."""
    rows = []
    for k in range(count):
        at, segments, before = rng.random() * 4, [["system", rng.choice([0, 40, 96])]], None
        for turn in range(rng.randint(1, 3)):
            segments = [*segments, [f"u{k}.{turn}", rng.randint(1, 120)]]
            output = rng.randint(1, 80)
            if sum(n for _, n in segments) + output > limit:
                break
            rows.append({"id": f"c{k}.{turn}", "arrival": at, "prompt_len": sum(n for _, n in segments), "output_len": output,
                         "priority": rng.randint(0, 2), "segments": segments, "after": before})
            segments, at, before = [*segments, ["output", output]], at + 0.3 + 2 * rng.random(), rows[-1]["id"]
    return rows


@unittest.skipIf(MISSING, MISSING)
class PluginTest(unittest.TestCase):
    def test_records_equal_the_engines_state_on_the_oracle_cases(self):
        if not CASES.is_dir():
            self.skipTest(f"{CASES.name} of ../shared is absent")
        steps = 0
        for case in sorted(CASES.iterdir()):
            args = json.loads((case / "args.json").read_text())
            trace = [json.loads(line) for line in (case / "trace.jsonl").read_text().splitlines()]
            with self.subTest(case.name):
                more, frames = follow(self, args, trace, snapshots=25)
                steps += more
                report = shadow(frames)
                self.assertEqual((report["disagreements"], report["differed"], report["followed"]), (0, 0, 0), report)
        print(f"{steps} steps compared")

    def test_records_equal_the_engines_state_under_random_load_with_aborts(self):
        for seed in range(int(os.environ.get("FORETOKEN_SEEDS", "12"))):
            rng = random.Random(seed)
            args = {"num_gpu_blocks": rng.choice([60, 120, 900]), "max_num_seqs": rng.choice([4, 12, 32]),
                    "max_num_batched_tokens": rng.choice([64, 256, 1024]), "async_scheduling": rng.choice(["on", "off"]),
                    "policy": rng.choice(["fcfs", "priority"])}
            trace = [{"id": f"r{k}", "arrival": rng.random() * 3, "prompt_len": rng.randint(1, 300), "output_len": rng.randint(1, 60),
                      "priority": rng.randint(0, 3)} for k in range(60)]
            for r in trace:
                shared = min(r["prompt_len"] - 1, rng.choice([0, 0, 64, 160]))
                r["segments"] = [["common", shared], [r["id"], r["prompt_len"] - shared]]
            with self.subTest(seed=seed):
                follow(self, args, trace, lambda step: f"cmpl-ft-{rng.randrange(60)}-0-0123abcd" if rng.random() < 0.05 else None)

    def test_a_shadow_on_the_stream_decides_every_step_as_the_server_and_equals_its_snapshots(self):
        seen = {"steps": 0, "compared": 0, "restored": 0, "lost": 0}
        for seed in range(int(os.environ.get("FORETOKEN_SEEDS", "10"))):
            rng = random.Random(1000 + seed)
            args = {"num_gpu_blocks": rng.choice([60, 120, 900]), "max_num_seqs": rng.choice([4, 12, 32]),
                    "max_num_batched_tokens": rng.choice([64, 256, 1024]), "async_scheduling": rng.choice(["on", "off"]),
                    "policy": rng.choice(["fcfs", "priority"]), "stop": rng.choice(["eos", "length"])}
            trace = conversations(rng, 40, 600)
            with self.subTest(seed=seed, args=args):
                _, frames = follow(self, args, trace, snapshots=12,
                                   abort=lambda step, rng=rng, n=len(trace): f"cmpl-ft-{rng.randrange(n)}-0-0123abcd" if rng.random() < 0.04 else None)
                report = shadow(frames)
                self.assertEqual((report["disagreements"], report["differed"], report["followed"]), (0, 0, 0), report)
                lossy = shadow(frames, 0.01, seed)
                self.assertEqual((lossy["disagreements"], lossy["differed"]), (0, 0), lossy)
                for key in seen:
                    seen[key] += report[key] + lossy[key]
        print(seen)
        self.assertTrue(all(seen.values()), seen)

    def test_a_failure_of_the_plugin_leaves_the_server_running(self):
        args = {"num_gpu_blocks": 200}
        trace = [{"id": f"r{k}", "arrival": 0, "prompt_len": 20, "output_len": 5} for k in range(4)]
        os.environ.pop("FORETOKEN_SYNC", None)
        scheduler = real_scheduler.make_scheduler(args)
        tracer = scheduler._foretoken
        tracer.stream = _Held(scheduler, Mirror())
        tracer._admissions = lambda output: 1 / 0
        with self.assertLogs("foretoken_vllm", "ERROR") as logs:
            real_scheduler.run(scheduler, args, trace, lambda in_flight: None)
        self.assertEqual(len(logs.output), 1)
        self.assertIn("goes on without it", logs.output[0])
        self.assertIsNone(tracer.stream)

    def test_ids_of_the_router_come_back_and_all_others_are_foreign(self):
        self.assertEqual(number_of("cmpl-ft-42-0-0123abcd"), 42)
        self.assertEqual(number_of("chatcmpl-ft-42-89abcdef"), 42)
        for other in ("cmpl-42-0-0123abcd", "cmpl-ft-42-1-0123abcd", "ft-", "cmpl-ft-9999999999999999999-0-0123abcd"):
            self.assertGreaterEqual(number_of(other), FOREIGN, other)
        self.assertEqual(number_of("x"), number_of("x"))

    def test_a_forged_length_is_refused_before_anything_is_kept(self):
        self.assertIsNone(wire.frame_length(b"\0\0"))
        with self.assertRaises(ValueError):
            wire.frame_length(b"\0\0\0\0" + (1 << 20).to_bytes(4, "little"))
        with self.assertRaises(ValueError):
            wire.frame_length(b"\xff\xff\xff\xff")


if __name__ == "__main__":
    unittest.main()
