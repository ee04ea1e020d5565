#!/usr/bin/env python3
"""The `foretoken` script builds when it must, only then, and once. Bazel is a stand-in here that logs its calls."""
import os
import shutil
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

SCRIPT = Path("foretoken").resolve()
FAKE_BAZEL = """#!/bin/bash
echo "$1" >>"$ROOT_LOG"
if [ "$1" = info ]; then echo "$ROOT_BIN"; exit; fi
echo "noise of the build"
sleep "${BUILD_SECONDS:-0}"
[ ! -e broken ] || exit 1
mkdir -p "$ROOT_BIN/integration/cli"
printf '#!/bin/sh\\necho "ran $(cat runtime/a.cc) $*"\\nexit 7\\n' >"$ROOT_BIN/integration/cli/foretoken"
chmod +x "$ROOT_BIN/integration/cli/foretoken"
"""
SOURCES = "third_party tools runtime schema actors configs integration".split()


class ScriptTest(unittest.TestCase):
    def setUp(self):
        self.root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        shutil.copy(SCRIPT, self.root / "foretoken")
        for folder in SOURCES:
            (self.root / folder).mkdir()
        for name in ("WORKSPACE", "BUILD", ".bazelrc"):
            (self.root / name).touch()
        (self.root / "runtime/a.cc").write_text("one")
        (self.root / "fake").mkdir()
        (self.root / "fake/bazel").write_text(FAKE_BAZEL)
        (self.root / "fake/bazel").chmod(0o755)
        # All packages installed: the script must then not call apt-get at all.
        (self.root / "fake/dpkg-query").write_text('#!/bin/sh\nshift 2\nfor p; do echo "installed $p"; done\n')
        (self.root / "fake/dpkg-query").chmod(0o755)
        (self.root / "fake/apt-get").write_text("#!/bin/sh\nexit 99\n")
        (self.root / "fake/apt-get").chmod(0o755)

    def start(self, *arguments, **variables):
        environment = {"PATH": f"{self.root}/fake:/usr/bin:/bin", "ROOT_BIN": f"{self.root}/out", "ROOT_LOG": f"{self.root}/log", **variables}
        return subprocess.Popen([self.root / "foretoken", *arguments], cwd=self.root, env=environment, text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run_script(self, *arguments, **variables):
        process = self.start(*arguments, **variables)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def builds(self):
        log = self.root / "log"
        return log.read_text().split().count("build") if log.exists() else 0

    def test_builds_first_and_passes_arguments_output_and_exit_code_through(self):
        code, out, err = self.run_script("engine", "--trace", "a b")
        self.assertEqual((code, out), (7, "ran one engine --trace a b\n"))
        self.assertIn("noise of the build", err)

    def test_a_second_start_builds_nothing_and_is_silent(self):
        self.run_script()
        code, out, err = self.run_script("x")
        self.assertEqual((code, out, err, self.builds()), (7, "ran one x\n", "", 1))

    def test_a_changed_added_or_deleted_source_is_built(self):
        self.run_script()
        (self.root / "runtime/a.cc").write_text("two")
        self.assertEqual(self.run_script()[1], "ran two \n")
        (self.root / "integration/new.cc").touch()
        self.run_script()
        (self.root / "integration/new.cc").unlink()
        self.run_script()
        self.assertEqual(self.builds(), 4)

    def test_a_source_put_back_with_an_old_time_is_built(self):
        self.run_script()
        (self.root / "runtime/a.cc").write_text("old")
        os.utime(self.root / "runtime/a.cc", (1, 1))
        self.assertEqual(self.run_script()[1], "ran old \n")

    def test_a_source_that_changes_during_the_build_is_built_next_time(self):
        process = self.start(BUILD_SECONDS="1")
        deadline = time.monotonic() + 30
        while self.builds() == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        (self.root / "runtime/a.cc").touch()
        process.communicate()
        self.run_script()
        self.assertEqual(self.builds(), 2)

    def test_a_failed_build_runs_nothing_and_is_tried_again(self):
        self.run_script()
        (self.root / "runtime/a.cc").write_text("two")
        (self.root / "broken").touch()
        for _ in range(2):
            code, out, err = self.run_script()
            self.assertEqual((code, out), (1, ""))
            self.assertIn("the build failed", err)
        (self.root / "broken").unlink()
        self.assertEqual(self.run_script()[1], "ran two \n")

    def test_many_at_once_build_once(self):
        processes = [self.start("x", BUILD_SECONDS="0.3") for _ in range(8)]
        for process in processes:
            self.assertEqual(process.communicate(timeout=60)[0], "ran one x\n")
        self.assertEqual(self.builds(), 1)

    def test_works_from_another_folder_and_through_a_link(self):
        with tempfile.TemporaryDirectory() as elsewhere:
            os.symlink(self.root / "foretoken", f"{elsewhere}/ft")
            environment = {"PATH": f"{self.root}/fake:/usr/bin:/bin", "ROOT_BIN": f"{self.root}/out", "ROOT_LOG": f"{self.root}/log"}
            run = subprocess.run(["./ft"], cwd=elsewhere, env=environment, capture_output=True, text=True)
            self.assertEqual(run.returncode, 7, run.stderr)

    def test_missing_packages_that_apt_cannot_install_are_named(self):
        (self.root / "fake/dpkg-query").write_text('#!/bin/sh\nshift 2\nfor p; do [ "$p" = g++ ] || echo "installed $p"; done\n')
        (self.root / "fake/sudo").write_text('#!/bin/sh\nexec "$@"\n')
        (self.root / "fake/sudo").chmod(0o755)
        code, out, err = self.run_script()
        self.assertEqual((code, out), (1, ""))
        self.assertIn("apt-get install g++\n", err)


if __name__ == "__main__":
    unittest.main()
