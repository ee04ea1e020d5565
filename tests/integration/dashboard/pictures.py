#!/usr/bin/env python3
"""Makes the pictures of docs/images anew, of the real page: an emulated cluster under load, one engine's sync stream broken and another engine killed.

    tests/integration/dashboard/pictures.py PATH/TO/foretoken [FOLDER]

Needs Chromium (`./foretoken test` sets it up); takes a minute. FOLDER: docs/images unless given.
"""
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from tests.integration.dashboard import browser as browsers  # noqa: E402


def panel(page, heading):
    """Where the panel with that heading is on the page, as a clip."""
    box = page.value(f"(() => {{ const r = document.getElementById('{heading}').closest('section').getBoundingClientRect(); "
                     "return [r.x + scrollX, r.y + scrollY, r.width, r.height]; })()")
    return {"x": box[0], "y": box[1], "width": box[2], "height": box[3], "scale": 1}


def main():
    program = os.path.abspath(sys.argv[1])
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "docs" / "images"
    served = subprocess.Popen([program, "serve", "--topology", str(ROOT / "configs/topologies/mixed-gpu.yaml"), "--load", "rate=40", "--fault-switch",
                               "--dashboard", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True)
    try:
        url = next(found.group(1) for line in served.stderr if (found := re.search(r"dashboard at (\S+)", line)))

        def order(**what):
            urllib.request.urlopen(urllib.request.Request(url + "faults", data=json.dumps(what).encode(), headers={"Content-Type": "application/json"}), timeout=60).close()

        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            page = browsers.Browser(folder, 1280, 900)
            page.open(url)
            page.wait("document.querySelectorAll('.decision').length > 2", 120, "live decisions")
            time.sleep(30)  # a course to look at
            order(instance="a100-1", delay=0.3, drop=0.2)
            time.sleep(10)
            order(instance="l40s-0", kill=60)
            page.wait("[...document.querySelectorAll('.node')].some((n) => n.dataset.health === 'down')", 60, "the dead engine")
            time.sleep(3)
            page.screenshot(out / "dashboard.webp", quality=60)
            for name, heading in (("cluster", "h-map"), ("drift", "h-drift"), ("sync-events", "h-sync")):
                page.screenshot(out / f"dashboard-{name}.webp", quality=70, clip=panel(page, heading))
            ended = "[...document.querySelectorAll('.decision')].find((d) => d.textContent.includes('finished'))"
            page.value(ended + ".querySelector('summary').click()")
            page.wait("!!document.querySelector('.decision[open] tbody tr')", 60, "a decision's candidates")
            box = page.value("(() => { const r = document.querySelector('.decision[open]').getBoundingClientRect(); return [r.x + scrollX, r.y + scrollY, r.width, r.height]; })()")
            page.screenshot(out / "dashboard-decision.webp", quality=70, clip={"x": box[0], "y": box[1], "width": box[2], "height": box[3], "scale": 1})
            page.close()
    finally:
        served.kill()
        served.wait()
        served.stderr.close()
    for file in sorted(out.glob("dashboard*.webp")):
        print(f"{file.name}: {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
