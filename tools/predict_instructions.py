#!/usr/bin/env python3
"""Instructions that one prediction takes, by predictor, and where those of the reference (v1) go. Runs `foretoken bench predict` under
callgrind and prints two tables in Markdown (docs/predictors.md). Instructions repeat where times do not.

    tools/predict_instructions.py PROGRAM [--running 32] [--waiting 64]

PROGRAM is the built foretoken (with symbols). Needs valgrind."""
import argparse
import collections
import os
import re
import subprocess
import sys
import tempfile

ROWS = [("reference", "off", "ReferencePredictor"), ("pattern", "off", "PatternPredictor"), ("pattern_reuse", "on", "PatternPredictor"),
        ("timeline", "off", "TimelinePredictor"), ("timeline", "on", "TimelinePredictor"),
        ("timeline_externality", "off", "TimelinePredictor"), ("timeline_externality", "on", "TimelinePredictor")]

# A function's own instructions count for the first part that its name, or else its nearest named caller's, belongs to.
PARTS = [("copying the engine", r"::Clone\(|::(\w+)::\1\(.*const&"),
         ("KV blocks and prefix cache", r"KvBlockPool|VllmCore::(Allocate|AllocateSteady|Lookup|CacheUpTo|HashUpTo|FreeBlocks|MakeFindable)|HashIndex|"
                                        r"BlockHasher|ExtendBlockHashes"),
         ("step time", r"LoopedEngine::DurationOf|StepTime|ReplayLaw|DecodeSegmentAt"),
         ("forming batches and applying results", r"VllmCore::|SteadyCalendar|RequestSlab"),
         ("destroying the copy", r"~LoopedEngine|~VllmCore"),
         ("the engine's loop", r"LoopedEngine::")]


def callgrind(program, predictor, reuse, kind, args, folder):
    out = f"{folder}/{predictor}-{reuse}"
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--collect-atstart=no",
               f"--toggle-collect=foretoken::{kind}::Predict(*", program, "bench", "predict", "--predictor", predictor, "--reuse", reuse,
               "--running", str(args.running), "--waiting", str(args.waiting), "--predictions", "64", "--index-instances", "1",
               "--index-blocks", "1000"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nexit code {done.returncode}: {done.stderr.strip()[-500:]}")
    return open(out).read()


def parse(text):
    """Own instructions by function, and calls: (caller, callee) -> [count, inclusive instructions]."""
    names = {}

    def name(field):
        number, _, rest = field.partition(" ")
        if rest:
            names[number] = rest
        return names[number]

    own, calls = collections.Counter(), collections.defaultdict(lambda: [0, 0])
    function = callee = None
    count = 0
    for line in text.splitlines():
        if line.startswith("fn="):
            function = name(line[3:])
        elif line.startswith("cfn="):
            callee = name(line[4:])
        elif line.startswith("calls="):
            count = int(line[6:].split()[0])
        elif re.match(r"[+\-*\d]", line):
            cost = int(line.split()[1])
            if callee is None:
                own[function] += cost
            else:
                calls[function, callee][0] += count
                calls[function, callee][1] += cost
                callee = None
    return own, calls


def part_of(function):
    return next((label for label, pattern in PARTS if re.search(pattern, function)), None)


def attribute(own, calls):
    """Instructions by part: a function without a part of its own is shared out among its callers' parts, by what they spent in it."""
    callers = collections.defaultdict(list)
    for (caller, callee), (_, cost) in calls.items():
        if caller != callee:
            callers[callee].append((caller, cost))
    known = {}

    def shares(function, path):
        label = part_of(function)
        if label:
            return {label: 1.0}
        if function in known:
            return known[function]
        total = sum(cost for caller, cost in callers[function] if caller not in path)
        out = collections.Counter()
        if total == 0:
            out["the rest"] = 1.0
        for caller, cost in callers[function]:
            if caller in path or total == 0:
                continue
            for label, share in shares(caller, path | {function}).items():
                out[label] += share * cost / total
        known[function] = out
        return out

    parts = collections.Counter()
    for function, cost in own.items():
        for label, share in shares(function, frozenset({function})).items():
            parts[label] += share * cost
    return parts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--running", type=int, default=32)
    parser.add_argument("--waiting", type=int, default=64)
    args = parser.parse_args()
    print(f"{args.running} running, {args.waiting} waiting\n\n| Predictor | Reuse | Predictions | Instructions each |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for predictor, reuse, kind in ROWS:
            own, calls = parse(callgrind(os.path.abspath(args.program), predictor, reuse, kind, args, folder))
            entry = next(f for f in own if f"{kind}::Predict(" in f)
            made = sum(n for (_, callee), (n, _) in calls.items() if callee == entry)
            total = sum(own.values())
            print(f"| {predictor} | {reuse} | {made} | {total / max(made, 1):,.0f} |", flush=True)
            if predictor == "reference":
                reference, reference_total = attribute(own, calls), total
    print("\n| Where the reference's instructions go | Share |\n|---|---|")
    for label, cost in reference.most_common():
        print(f"| {label} | {100 * cost / reference_total:.1f} % |")


if __name__ == "__main__":
    main()
