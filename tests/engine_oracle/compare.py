"""Shared by the comparisons of the engine with its specification: runs the engine, finds the first difference."""
import itertools
import os
import subprocess

ENGINE = os.environ.get("ENGINE_ALONE", "tests/engine_oracle/engine_alone")


def flags(arguments):
    """{"max_num_seqs": 8, "blocks": True} -> ["--max-num-seqs", "8", "--blocks"]"""
    named = [("--" + key.replace("_", "-"), value) for key, value in arguments.items() if value is not False]
    return [text for flag, value in named for text in ((flag,) if value is True else (flag, str(value)))]


def engine(trace, arguments):
    """(exit code, lines, stderr)"""
    done = subprocess.run([ENGINE, "engine", "--trace", trace, *flags(arguments)], capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout.splitlines(), done.stderr


def first_difference(expected, got):
    """Empty if the lines are the same; else the first line that differs, cut to the place where it does."""
    for number, (e, g) in enumerate(itertools.zip_longest(expected, got, fillvalue="(end)"), 1):
        if e != g:
            at = next((i for i, (a, b) in enumerate(zip(e, g)) if a != b), min(len(e), len(g)))
            cut = max(at - 60, 0)
            return f"line {number}, column {at + 1}:\n  expected ...{e[cut:at + 80]}\n  engine   ...{g[cut:at + 80]}"
    return ""
