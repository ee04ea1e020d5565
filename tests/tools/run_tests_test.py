#!/usr/bin/env python3
"""The test runner's counts are those of the test cases, and nothing that failed goes uncounted."""
import json
import unittest

from tools import run_tests

XML = """<testsuites><testsuite>
<testcase name="A" classname="S" status="run" result="completed"/>
<testcase name="B" classname="S" status="run" result="completed"><failure message="x != y"/></testcase>
<testcase name="C" classname="S" status="run" result="skipped"><skipped message="file:1&#10;needs ../shared"/></testcase>
</testsuite></testsuites>"""
GREEN = '<testsuites><testsuite><testcase name="A" classname="S" status="run"/></testsuite></testsuites>'


def result(label, status, xml, cached=False):
    outputs = [{"name": "test.log", "uri": "file:///log"}, {"name": "test.xml", "uri": f"file://{xml}"}]
    return {"id": {"testResult": {"label": label}}, "testResult": {"status": status, "cachedLocally": cached, "testActionOutput": outputs}}


def read(*events):
    files = {"/a b.xml": XML, "/green.xml": GREEN, "/empty.xml": ""}
    return run_tests.read_events([json.dumps(e) for e in events], read_xml=files.__getitem__)


class CountingTest(unittest.TestCase):
    def test_cases_are_counted_not_targets(self):
        outcome = read(result("//x:t", "FAILED", "/a%20b.xml"), result("//x:u", "PASSED", "/green.xml", cached=True))
        self.assertEqual((outcome.passed, outcome.failed, outcome.targets, outcome.cached), (2, ["//x:t S.B"], 2, 1))
        self.assertEqual(outcome.skipped, ["//x:t S.C: needs ../shared"])

    def test_a_crash_without_a_failed_case_is_a_failure(self):
        for xml in ("/green.xml", "/empty.xml"):
            for status in ("FAILED", "TIMEOUT"):
                self.assertEqual(read(result("//x:t", status, xml)).failed, ["//x:t (ended abnormally)"])

    def test_a_script_test_without_cases_counts_once(self):
        outcome = read(result("//x:t", "PASSED", "/empty.xml"))
        self.assertEqual((outcome.passed, outcome.failed), (1, []))

    def test_what_does_not_build_or_load_is_a_failure(self):
        outcome = read({"id": {"targetCompleted": {"label": "//x:t"}}, "aborted": {"reason": "ANALYSIS_FAILURE"}},
                       {"id": {"targetCompleted": {"label": "//x:u"}}, "completed": {"success": False}},
                       {"id": {"targetCompleted": {"label": "//x:v"}}, "completed": {"success": True}},
                       {"id": {"pattern": {"pattern": ["//..."]}}, "aborted": {"reason": "LOADING_FAILURE"}})
        self.assertEqual(outcome.failed, ["//x:t (did not build)", "//x:u (did not build)", "//... (could not be loaded)"])


class OptionsTest(unittest.TestCase):
    def test_numbers_reach_the_tests_as_environment(self):
        flags = run_tests.bazel_flags(run_tests.parse_arguments(["--seeds", "20", "--cases", "300", "--real-engines"]))
        for variable in ("FORETOKEN_SEEDS=20", "FORETOKEN_CASES=300", "FORETOKEN_REAL_ENGINES=1"):
            self.assertIn(f"--test_env={variable}", flags)

    def test_wrong_usage_ends_with_code_2(self):
        for arguments in (["--bogus"], ["--seeds", "0"], ["--cases", "many"]):
            with self.assertRaises(SystemExit) as ended:
                run_tests.parse_arguments(arguments)
            self.assertEqual(ended.exception.code, 2)


if __name__ == "__main__":
    unittest.main()
