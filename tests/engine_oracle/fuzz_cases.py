# Copied unchanged (but for this comment) from the project's design material, shared/spec/fuzz_cases.py: the random cases that
# the specification was checked with against the real vLLM scheduler.
"""Random scheduler cases. fuzz_cases.py SEED DIR writes DIR/trace.jsonl and DIR/args.json (flags of refsim.py); case(seed) -> (rows, args)."""
import json, random, sys


def case(seed):
    R = random.Random(seed); bs = R.choice([1, 2, 4, 8, 16]); n = R.randint(2, 40)
    segs = [(f"s{i}", R.randint(1, 12 * bs)) for i in range(R.randint(1, 5))]
    rows = []; t = 0.0
    for i in range(n):
        t += R.choice([0, 0, R.expovariate(R.choice([50, 200, 1000]))])
        parts = []
        for _ in range(R.randint(0, 2)):
            sg = R.choice(segs); parts.append([sg[0], R.choice([sg[1], R.randint(1, sg[1])])])
        if rows and R.random() < .3:
            o = R.choice(rows); parts = list(o["segments"]) + [["out:" + o["id"], R.randint(1, o["output_len"])]]
        if R.random() < .8 or not parts: parts.append([f"u{i}", R.randint(1, 10 * bs)])
        rows.append(dict(id=f"r{i}", arrival=round(t, 6), prompt_len=sum(l for _, l in parts),
                         output_len=R.randint(1, R.choice([3, 20, 60])), priority=R.randint(0, 2), segments=parts))
    big = max(r["prompt_len"] + r["output_len"] for r in rows)
    need = -(-big // bs) + 2
    arg = dict(max_num_seqs=R.choice([2, 4, 8, 64]), max_num_batched_tokens=R.choice([16, 32, 64, 256, 2048]),
               num_gpu_blocks=R.choice([need, need + 3, int(need * 1.5) + 1, need * 3, need * 20]), block_size=bs,
               prefix_caching=R.choice(["on", "on", "on", "off"]), policy=R.choice(["fcfs", "fcfs", "priority"]),
               long_prefill_token_threshold=R.choice([0, 0, 0, 8, 24]), watermark=R.choice([0, 0, 0.01, 0.1]),
               reserve_full_isl=R.choice(["on", "on", "off"]), async_scheduling=R.choice(["on", "off"]),
               stop=R.choice(["max_tokens", "eos"]), cpu=R.choice([0, 0.0003]), max_model_len=max(R.choice([131072, 131072, big, big - 1, 0]), max(r["prompt_len"] for r in rows) + R.choice([1, 3])))
    arg["max_num_seqs"] = min(arg["max_num_seqs"], arg["max_num_batched_tokens"])
    return rows, arg


def newer(seed, arg):
    """Draws the options of newer vLLM versions as well."""
    R = random.Random(seed * 7919 + 1)
    if R.random() < .5: arg["lone_long_prefill"] = "full"
    if R.random() < .3: arg["self_preempt"] = "continue"
    if R.random() < .3: arg["long_prefill_adaptive"] = "on"; arg["long_prefill_token_threshold"] = R.choice([4, 8, 24])
    if R.random() < .3: arg["max_num_active_seqs"] = R.randint(1, arg["max_num_seqs"])
    if R.random() < .3: arg["prefill_schedule_interval"] = R.choice([2, 3, 8])
    return arg


def cli(arg): return [x for k, v in arg.items() for x in ("--" + k.replace("_", "-"), str(v))]


if __name__ == "__main__":
    rows, arg = case(int(sys.argv[1])); newer(int(sys.argv[1]), arg)
    open(sys.argv[2] + "/trace.jsonl", "w").write("".join(json.dumps(r) + "\n" for r in rows)); json.dump(arg, open(sys.argv[2] + "/args.json", "w"))
