#!/usr/bin/env python3
"""Random cases: the engine prints what the executable specification prints, to the last character, block ids included -
also up to the limit of steps where the specification live-locks. FORETOKEN_CASES: how many; FORETOKEN_SEED: only that one."""
import contextlib
import io
import json
import multiprocessing
import os
import sys
import tempfile

from tests.engine_oracle import compare, fuzz_cases, refsim

MAX_STEPS = 3000  # turns of the engine's loop; random cases that end do so in fewer


def case(seed):
    rows, arguments = fuzz_cases.case(seed)
    fuzz_cases.newer(seed, arguments)
    return rows, dict(arguments, blocks=True, max_steps=MAX_STEPS)


def specification(trace, arguments):
    """(reached the limit of steps, lines)"""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            refsim.main(["--trace", trace, *compare.flags(arguments)])
    except SystemExit as end:
        assert str(end) == "max steps", end
        return True, printed.getvalue().splitlines()
    return False, printed.getvalue().splitlines()


def check(seed):
    """(live-locked, what differs)"""
    rows, arguments = case(seed)
    with tempfile.TemporaryDirectory() as folder:
        trace = folder + "/trace.jsonl"
        with open(trace, "w") as out:
            out.writelines(json.dumps(row) + "\n" for row in rows)
        limited, expected = specification(trace, arguments)
        code, lines, error = compare.engine(trace, arguments)
    if code != (1 if limited else 0):
        return limited, f"exit code {code}: {error.strip()}"
    return limited, compare.first_difference(expected, lines)


def seeds():
    if os.environ.get("FORETOKEN_SEED"):
        return [int(os.environ["FORETOKEN_SEED"], 0)]
    count = int(os.environ.get("FORETOKEN_CASES", "0")) or 1500
    first = int(os.environ.get("FORETOKEN_EXTRA_SEED", "0"), 0) % 10**9
    return range(first, first + count)


def main():
    todo = seeds()
    print(f"{len(todo)} cases, seeds {todo[0]} to {todo[-1]}")
    with multiprocessing.Pool(min(len(todo), os.cpu_count() or 1)) as pool:
        outcomes = pool.map(check, todo, chunksize=8)
    wrong = [(seed, what) for seed, (_, what) in zip(todo, outcomes) if what]
    limited = sum(at_limit for at_limit, _ in outcomes)
    print(f"{len(todo) - len(wrong)} identical ({limited} of all cut off at {MAX_STEPS} turns), {len(wrong)} differ")
    if not wrong:
        return 0
    seed, what = wrong[0]
    print(f"seed {seed}: {what}\nto repeat: FORETOKEN_SEED={seed} bazel test //tests/engine_oracle:differential_test --test_env=FORETOKEN_SEED")
    print("seeds that differ:", *(seed for seed, _ in wrong))
    return 1


if __name__ == "__main__":
    sys.exit(main())
