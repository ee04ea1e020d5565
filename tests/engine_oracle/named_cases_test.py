#!/usr/bin/env python3
"""The engine prints what the real vLLM scheduler printed, to the last character, block ids included."""
import json
import os
import pathlib
import subprocess
import unittest

from tests.engine_oracle import compare

OWN = pathlib.Path("tests/engine_oracle/cases")
SHARED = pathlib.Path(os.environ.get("FORETOKEN_SHARED", "/nonexistent")) / "oracle/cases"


class NamedCasesTest(unittest.TestCase):
    def check_all(self, folder):
        cases = sorted(case for case in folder.iterdir() if (case / "args.json").exists())
        for case in cases:
            with self.subTest(case=case.name):
                arguments = dict(json.loads((case / "args.json").read_text()), blocks=True)
                code, lines, error = compare.engine(str(case / "trace.jsonl"), arguments)
                self.assertEqual((code, error), (0, ""))
                self.assertEqual(compare.first_difference((case / "expected.jsonl").read_text().splitlines(), lines), "")
        return len(cases)

    def test_the_cases_kept_here_are_identical(self):
        self.assertEqual(self.check_all(OWN), 6)

    def test_the_shared_cases_are_identical(self):
        if not SHARED.exists():
            self.skipTest("needs ../shared/oracle/cases (FORETOKEN_SHARED)")
        self.assertGreaterEqual(self.check_all(SHARED), 25)


class RefusalTest(unittest.TestCase):
    def refused(self, *arguments):
        trace = str(OWN / "01_single_sync/trace.jsonl")
        done = subprocess.run([compare.ENGINE, "engine", "--trace", trace, *arguments], capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        return done.stderr

    def test_options_that_are_not_modelled_are_refused_by_name(self):
        for option in (["--enable-lora"], ["--speculative-config", '{"method": "ngram"}'], ["--pipeline-parallel-size", "2"],
                       ["--kv-transfer-config", "{}"]):
            self.assertIn(option[0], self.refused(*option))

    def test_an_unknown_version_names_those_that_are_known(self):
        self.assertIn("0.32", self.refused("--vllm-version", "0.1"))

    def test_more_loop_turns_than_allowed_fail(self):
        code, _, error = compare.engine(str(OWN / "01_single_sync/trace.jsonl"), {"max_steps": 3})
        self.assertEqual((code, error), (1, "max steps\n"))


if __name__ == "__main__":
    unittest.main()
