#!/usr/bin/env python3
"""What Prometheus gets from running processes, checked by Prometheus' own tool; and that the alerts and the Grafana dashboard ask for
nothing that is not there."""
import json
import os
import re
import shutil
import signal
import subprocess
import time
import unittest
import urllib.error
import urllib.request

from tests.integration.gateway.rig import MODEL, PROGRAM, Process, ask, ask_chat, wait_until

MONITORING = "integration/deploy/monitoring"
PROMTOOL = os.environ.get("FORETOKEN_PROMTOOL") or shutil.which("promtool")
needs_promtool = unittest.skipUnless(PROMTOOL, "no promtool here: apt-get install prometheus")
# Lines of a topology that runs anywhere, fast.
TOPOLOGY = "configs/topologies/small.yaml"
SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(\{.*\})? (\S+)$")


def samples(text):
    """{(name, labels): value} of a scrape."""
    found = {}
    for line in text.splitlines():
        if line.startswith("#") or not line:
            continue
        match = SAMPLE.match(line)
        assert match, f"not a sample: {line!r}"
        key = (match.group(1), match.group(2) or "")
        assert key not in found, f"twice in one scrape: {key}"
        found[key] = float(match.group(3))
    return found


def names(text):
    return {name for name, _ in samples(text)}


def lint(text):
    """What promtool says of a scrape, without its word on colons: they are the convention of this field (vllm:...)."""
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True)
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if line.strip() and "metric names should not contain ':'" not in line]


class Serve:
    """`foretoken serve` with a load that does not end, and its /metrics."""

    def __init__(self):
        self.process = subprocess.Popen([PROGRAM, "serve", "--topology", TOPOLOGY, "--load", "rate=20", "--dashboard", "127.0.0.1:0",
                                         "--drain", "0", "--log-format", "json"],
                                        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self.lines = []
        for line in self.process.stderr:
            self.lines.append(json.loads(line))
            if self.lines[-1]["kind"] == "dashboard":
                self.url = self.lines[-1]["url"]
                return
        raise AssertionError(f"serve ended with {self.process.wait()}: {self.lines}")

    def scrape(self):
        with urllib.request.urlopen(self.url + "metrics", timeout=30) as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8", answer.headers["Content-Type"]
            return answer.read().decode()

    def scrape_when(self, condition):
        kept = [""]

        def there():
            try:
                kept[0] = self.scrape()
            except urllib.error.HTTPError as error:
                assert error.code == 503, error  # nothing was observed yet
                return False
            return condition(kept[0])
        wait_until(there, limit=120, what="the metrics", pause=0.2)
        return kept[0]

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            rest = self.process.communicate(timeout=60)[1]
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        self.lines += [json.loads(line) for line in rest.splitlines()]


class ScrapeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        serve = Serve()
        try:
            cls.serve_text = serve.scrape_when(lambda text: {"foretoken:slo_headroom", "foretoken:prediction_error",
                                                             "foretoken:slo_attainment"} <= names(text))
        finally:
            serve.close()
        cls.serve_lines = serve.lines
        cls.engines = [Process("load", "engine", "--port", 0, "--set", "ttft=20ms", "itl=20ms") for _ in range(2)]
        cls.gateway = Process("gateway", "--port", 0, "--prometheus-port", 0, "--worker-urls", *[e.url for e in cls.engines])
        for stream in (True, False):
            assert ask_chat(cls.gateway.port, stream=stream, tokens=8).status == 200
        cls.gateway_text = cls.scrape_gateway()

    @classmethod
    def tearDownClass(cls):
        for process in (cls.gateway, *cls.engines):
            process.close()

    @classmethod
    def scrape_gateway(cls):
        kept = [""]

        def observed():
            kept[0] = ask(cls.gateway.port, "GET", "/metrics").body.decode()
            return ("foretoken:decisions_total", "") in samples(kept[0])
        wait_until(observed, limit=60, what="the gateway's first observation", pause=0.1)
        return kept[0]

    @needs_promtool
    def test_promtool_finds_nothing_wrong_in_a_scrape(self):
        self.assertEqual(lint(self.serve_text), [])
        self.assertEqual(lint(self.gateway_text), [])

    @needs_promtool
    def test_promtool_would_find_what_is_wrong(self):
        self.assertNotEqual(lint("# TYPE foretoken:broken counter\nforetoken:broken 1\n"), [])

    @needs_promtool
    def test_alert_rules_are_valid_and_fire_as_their_tests_say(self):
        for command in (["check", "rules", "prometheus-rules.yaml"], ["test", "rules", "prometheus-rules-test.yaml"]):
            done = subprocess.run([PROMTOOL, *command], cwd=MONITORING, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_every_metric_of_dashboard_and_alerts_is_in_a_scrape_of_each_host_that_has_it(self):
        there = names(self.serve_text) | names(self.gateway_text)
        for name in ("grafana-dashboard.json", "prometheus-rules.yaml"):
            with open(f"{MONITORING}/{name}") as file:
                asked = set(re.findall(r"\b(?:foretoken|vllm):\w+", file.read()))
            self.assertGreater(len(asked), 10, name)
            self.assertEqual(asked - there, set(), f"{name} asks for metrics that no process has")

    def test_both_hosts_have_what_the_alerts_need(self):
        with open(f"{MONITORING}/prometheus-rules.yaml") as file:
            asked = set(re.findall(r"\bforetoken:\w+", file.read()))
        self.assertEqual(asked - names(self.serve_text), set())
        # A gateway tells these two of what was predicted lately, and little was.
        self.assertLessEqual(asked - names(self.gateway_text), {"foretoken:slo_headroom", "foretoken:prediction_error"})

    def test_every_metric_is_explained_in_the_documentation(self):
        with open("docs/operations.md") as file:
            text = file.read()
        families = set(re.findall(r"^# TYPE (\S+)", self.serve_text + self.gateway_text, re.MULTILINE))
        self.assertEqual([name for name in sorted(families) if f"`{name}`" not in text], [])

    def test_the_gateway_counts_what_came_through_it(self):
        found = samples(self.gateway_text)
        self.assertEqual(found["foretoken:requests_total", ""], 2)
        self.assertEqual(found["foretoken:requests_finished_total", ""], 2)
        self.assertEqual(found["foretoken:time_to_first_token_seconds_count", ""], 1)  # of streams
        self.assertGreater(found["foretoken:inter_token_latency_seconds_count", ""], 0)
        per_engine = [value for (name, labels), value in found.items() if name == "vllm:e2e_request_latency_seconds_count"]
        self.assertEqual(len(per_engine), 2)
        self.assertEqual(sum(per_engine), 2)

    def test_no_client_makes_a_label(self):
        for k in range(40):
            ask_chat(self.gateway.port, model=f"made-up-{k}", user=f"someone-{k}", text=f"secret-{k}")
            ask(self.gateway.port, "GET", f"/no/such/path-{k}")
        time.sleep(1.2)  # the next observation
        text = self.scrape_gateway()
        for made_up in ("made-up", "someone", "secret", "path-"):
            self.assertNotIn(made_up, text)
        before, after = samples(self.gateway_text).keys(), samples(text).keys()
        more = {name for name, _ in after - before}
        # Gauges that are absent until several requests have ended.
        self.assertLessEqual(more, {"foretoken:prediction_coverage", "foretoken:prediction_error", "foretoken:slo_attainment",
                                    "foretoken:mirror_unheard_seconds", "foretoken:engine_prediction_error", "foretoken:slo_headroom", "foretoken:instances_needed", "foretoken:slo_predicted_missed",
                                    "foretoken:fleet_load", "foretoken:fleet_load_at_target"})
        self.assertIn(f'model_name="{MODEL}"', text)
        self.assertNotIn("secret", self.gateway.error_text())

    def test_serve_logs_one_json_object_a_line(self):
        for line in self.serve_lines:
            self.assertLessEqual({"time", "level", "program", "kind", "message"}, line.keys(), line)
            self.assertRegex(line["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")


if __name__ == "__main__":
    unittest.main()
