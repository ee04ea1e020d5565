#!/usr/bin/env python3
"""Runs every test: `./foretoken test [options]`. Prints what failed and what was skipped; the last line is
`N passed, N failed[, N skipped]`, counted in test cases (of GoogleTest) and script tests. Exit code 0 only if nothing
failed and everything built; 2 for wrong usage.

Bazel keeps the results of tests whose inputs did not change; the inputs are the sources, the data that BUILD files name
and the environment variables below. Data outside the repository (../shared) is an input by its path only: pass
--fresh after changing it there.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlparse

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Outcome:
    passed: int = 0
    failed: list = field(default_factory=list)  # names
    skipped: list = field(default_factory=list)  # "name: reason"
    cached: int = 0  # targets whose result Bazel had kept
    targets: int = 0

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.cached += other.cached
        self.targets += other.targets


def count_cases(label, xml_text, target_passed):
    """The outcome of one test target from its test.xml."""
    outcome = Outcome()
    try:
        cases = list(ElementTree.fromstring(xml_text).iter("testcase"))
    except ElementTree.ParseError:
        cases = []
    for case in cases:
        suite, name = case.get("classname"), case.get("name")
        full = f"{label} {suite}.{name}" if suite else label
        if case.find("failure") is not None or case.find("error") is not None:
            outcome.failed.append(full)
        elif case.get("result") in ("skipped", "suppressed") or case.find("skipped") is not None:
            skipped = case.find("skipped")
            reason = ((skipped.get("message") or skipped.text or "") if skipped is not None else "").strip()
            outcome.skipped.append(f"{full}: {reason.splitlines()[-1]}" if reason else full)
        else:
            outcome.passed += 1
    if not target_passed and not outcome.failed:  # a crash or a time-out leaves no failed case behind
        outcome.failed.append(f"{label} (ended abnormally)")
    if target_passed and not cases:
        outcome.passed += 1
    return outcome


def read_events(lines, read_xml=lambda path: Path(path).read_text(errors="replace")):
    """The outcome of a Bazel run from its build events (one JSON object a line)."""
    outcome = Outcome()
    for line in lines:
        event = json.loads(line)
        event_id = event.get("id", {})
        if "targetCompleted" in event_id and not event.get("completed", {}).get("success"):
            outcome.failed.append(f"{event_id['targetCompleted']['label']} (did not build)")
        elif "pattern" in event_id and "aborted" in event:
            outcome.failed.append(f"{' '.join(event_id['pattern'].get('pattern', []))} (could not be loaded)")
        elif "testResult" in event_id and "testResult" in event:
            result = event["testResult"]
            paths = {o["name"]: unquote(urlparse(o["uri"]).path) for o in result.get("testActionOutput", []) if "uri" in o}
            xml = read_xml(paths["test.xml"]) if "test.xml" in paths else ""
            one = count_cases(event_id["testResult"]["label"], xml, result["status"] in ("PASSED", "FLAKY"))
            one.targets = 1
            one.cached = int(result.get("cachedLocally", False))
            outcome.add(one)
    return outcome


def run_bazel(title, arguments):
    """Runs `bazel test`; build and test output goes to this terminal."""
    print(f"== {title}", flush=True)
    started = time.monotonic()
    with tempfile.NamedTemporaryFile("r", suffix=".json") as events:
        command = ["bazel", "test", "--keep_going", f"--build_event_json_file={events.name}", *arguments]
        code = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL).returncode
        outcome = read_events(events)
    if code == 4 and not outcome.failed:  # no test matched: not a failure of a test
        code = 0
    if code != 0 and not outcome.failed:
        outcome.failed.append(f"{title}: bazel ended with code {code}")
    print(f"== {title}: {outcome.targets} targets ({outcome.cached} unchanged), {outcome.passed} passed, "
          f"{len(outcome.failed)} failed, {len(outcome.skipped)} skipped in {time.monotonic() - started:.0f} s", flush=True)
    return outcome


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be >= 1")
    return value


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        prog="foretoken test", description="Runs every test.", epilog="Example: ./foretoken test --sanitizers --seeds 20")
    parser.add_argument("--sanitizers", action="store_true",
                        help="everything under AddressSanitizer and UBSan, tests/runtime under ThreadSanitizer too")
    parser.add_argument("--seeds", type=positive, metavar="N", help="seeds per random test (FORETOKEN_SEEDS)")
    parser.add_argument("--seed", type=positive, metavar="S", help="only this seed, to repeat a failure (FORETOKEN_SEED)")
    parser.add_argument("--cases", type=positive, metavar="N", help="cases per property or differential test (FORETOKEN_CASES)")
    parser.add_argument("--real-engines", action="store_true",
                        help="also tests against llama.cpp's server and vLLM, set up in .cache/ (minutes and 6 GB, once)")
    parser.add_argument("--gpu", action="store_true", help="also tests that need a GPU (FORETOKEN_GPU)")
    parser.add_argument("--quick", action="store_true", help="leave out the tests tagged slow")
    parser.add_argument("--fresh", action="store_true", help="run even what did not change")
    parser.add_argument("targets", nargs="*", default=["//..."], metavar="TARGET", help="Bazel patterns; default //...")
    return parser.parse_args(argv)


def promtool():
    """Prometheus' checker: the system's, or that of Debian's package, unpacked into .cache/ (its service is not wanted); else None."""
    if Path("/usr/bin/promtool").exists():
        return "/usr/bin/promtool"
    folder = ROOT / ".cache" / "promtool"
    found = folder / "usr" / "bin" / "promtool"
    if not found.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for command in (["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", "prometheus"],
                        ["sh", "-c", "dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool && rm prometheus_*.deb"]):
            if subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode != 0:
                return None
    return str(found)


def commit_seed():
    """A seed of each commit's own, so that CI explores more with every commit; None outside a git clone."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return int(git.stdout[:8], 16) if git.returncode == 0 else None


def prepare_real_engines():
    """Sets the real engines up, outside Bazel's sandbox since it downloads and is kept; what their tests must know, as environment."""
    sys.path[:0] = [str(ROOT / "integration" / "engines" / name) for name in ("llama", "vllm")]
    import llama_engine
    import vllm_engine
    found = {}
    for name, engine in (("LLAMA", llama_engine), ("VLLM", vllm_engine)):
        try:
            found[f"FORETOKEN_{name}"] = str(engine.setup(say=lambda text: print(f"== real engines: {text}", flush=True)))
        except engine.Unavailable as problem:
            found[f"FORETOKEN_{name}_MISSING"] = f"{name.lower()} cannot be set up here: " + " ".join(str(problem).split())
    return found


AXE = "4.14.1"  # axe-core, from npm: what the dashboard's accessibility is checked with


def prepare_axe():
    """Fetches axe-core into .cache/ once; its file, or None where it cannot be had (its test then says that it is skipped)."""
    folder = ROOT / ".cache" / f"axe-core-{AXE}"
    file = folder / "package" / "axe.min.js"
    if file.exists():
        return file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", f"axe-core@{AXE}"], cwd=folder, check=True, capture_output=True, timeout=120)
        subprocess.run(["tar", "xzf", f"axe-core-{AXE}.tgz", "package/axe.min.js"], cwd=folder, check=True, capture_output=True)
    except (OSError, subprocess.SubprocessError) as problem:
        print(f"== axe-core cannot be fetched: {problem}", flush=True)
    return file if file.exists() else None


def bazel_flags(options):
    variables = {"FORETOKEN_SEEDS": options.seeds, "FORETOKEN_CASES": options.cases,
                 "FORETOKEN_SEED": options.seed, "FORETOKEN_EXTRA_SEED": commit_seed() if os.environ.get("CI") else None,
                 "FORETOKEN_REAL_ENGINES": 1 if options.real_engines else None, "FORETOKEN_GPU": 1 if options.gpu else None,
                 "FORETOKEN_PROMTOOL": promtool()}
    shared = ROOT.parent / "shared"
    if shared.is_dir():
        variables["FORETOKEN_SHARED"] = shared
    flags = [f"--test_env={name}={value}" for name, value in variables.items() if value is not None]
    if options.fresh:
        flags.append("--nocache_test_results")
    return flags


def main(argv):
    options = parse_arguments(argv)
    flags = bazel_flags(options)
    slow = ["-slow"] if options.quick else []

    def filters(*more):
        tags = [*slow, *more]
        return [f"--test_tag_filters={','.join(tags)}"] if tags else []

    started = time.monotonic()
    engines = prepare_real_engines() if options.real_engines else {}
    flags += [f"--test_env={name}={value}" for name, value in engines.items()]
    if axe := prepare_axe():
        flags.append(f"--test_env=FORETOKEN_AXE={axe}")
    total = run_bazel("tests", [*flags, *filters(), "--", *options.targets])
    if options.sanitizers:
        total.add(run_bazel("AddressSanitizer + UBSan",
                            ["--config=asan", *flags, *filters("-no-sanitizer"), "--", *options.targets]))
        tsan = [*flags, *filters("-no-sanitizer"), f"--test_env=TSAN_OPTIONS=suppressions={ROOT}/tools/san/tsan.supp"]
        total.add(run_bazel("ThreadSanitizer", ["--config=tsan", *tsan, "--", "//tests/runtime/..."]))
    for variable, test in (("LLAMA", "real_engines"), ("VLLM", "engines/vllm_plugin")):
        if missing := engines.get(f"FORETOKEN_{variable}_MISSING"):
            total.skipped.append(f"//tests/integration/{test}: {missing}")
    for name in total.skipped:
        print(f"skipped {name}")
    for name in total.failed:
        print(f"FAILED  {name}")
    print(f"{total.targets} test targets in {time.monotonic() - started:.0f} s")
    skipped = f", {len(total.skipped)} skipped" if total.skipped else ""
    print(f"{total.passed} passed, {len(total.failed)} failed{skipped}", flush=True)
    return 1 if total.failed or total.targets == 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
