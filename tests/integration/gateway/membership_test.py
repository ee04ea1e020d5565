#!/usr/bin/env python3
"""Workers that come and go while requests flow: by the admin address, by a file, by DNS, and by an address that another engine takes. What must
hold is that no request fails, none goes to a worker that takes nothing new, and Foretoken is not restarted."""
import collections
import os
import shutil
import subprocess
import tempfile
import threading
import time
import unittest

from tests.integration.gateway import rig
from tests.integration.gateway.rig import ask, ask_chat, chat, report, wait_until


class Traffic:
    """Clients that ask one after the other until told to stop; what each answer was."""

    def __init__(self, port, clients=8, stream=True, model=rig.MODEL, tokens=4):
        self.port, self.stopping, self.statuses, self.bad = port, False, collections.Counter(), []
        self.lock = threading.Lock()
        self.body = {"stream": stream, "model": model, "tokens": tokens}
        self.threads = [threading.Thread(target=self._run) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def _run(self):
        while not self.stopping:
            try:
                answer = ask_chat(self.port, **self.body)
                status = answer.status
                if status == 200 and self.body["stream"] and answer.events()[-1] != "[DONE]":
                    status = "cut"
            except (OSError, ValueError) as problem:
                status = type(problem).__name__
            with self.lock:
                self.statuses[status] += 1
                if status != 200 and len(self.bad) < 5:
                    self.bad.append((status, answer.body[:300] if isinstance(status, int) else b""))

    def answered(self):
        return self.statuses[200]

    def more(self, count=20):
        """Waits until so many more have been answered."""
        before = self.answered()
        wait_until(lambda: self.answered() >= before + count, what="more answers")

    def stop(self):
        self.stopping = True
        for thread in self.threads:
            thread.join()
        return self.statuses


class MembershipTest(unittest.TestCase):
    def engine(self, **options):
        engine = rig.Engine(**{"ttft": "5ms", "itl": "2ms", **options})
        self.addCleanup(engine.close)
        return engine

    def gateway(self, engines, *flags, policy="min_e2e"):
        gateway = rig.Gateway(engines, *flags, policy=policy)
        self.addCleanup(gateway.close)
        return gateway

    def traffic(self, gateway, **options):
        traffic = Traffic(gateway.port, **options)
        self.addCleanup(traffic.stop)
        return traffic

    def workers(self, gateway):
        return {w["url"]: w for w in ask(gateway.port, "GET", "/workers").json()["workers"]}

    def good(self, traffic):
        statuses = traffic.stop()
        self.assertEqual(set(statuses), {200}, (statuses, traffic.bad))
        print(f"[measured] {statuses[200]} requests, none failed")

    def test_workers_join_and_leave_under_load(self):
        engines = [self.engine() for _ in range(4)]
        gateway = self.gateway(engines[:2])
        traffic = self.traffic(gateway)
        traffic.more()
        for engine in engines[2:]:
            added = ask(gateway.port, "POST", "/workers", {"url": engine.url})
            self.assertEqual((added.status, added.json()["url"]), (202, engine.url))
            self.assertEqual(ask(gateway.port, "POST", "/workers", {"url": engine.url}).status, 200)  # there already
            report("a joining worker's first request after", wait_until(lambda: engine.stats()["received"] > 0))
        ids = {url: w["id"] for url, w in self.workers(gateway).items()}
        self.assertEqual(len(set(ids.values())), 4)
        for engine in engines[:2]:
            removed = ask(gateway.port, "DELETE", f"/workers/{ids[engine.url]}")
            self.assertEqual(removed.status, 202)
            wait_until(lambda: engine.url not in self.workers(gateway), what="a worker that has left")
            received = engine.stats()["received"]
            traffic.more()
            self.assertEqual(engine.stats()["received"], received)
            self.assertEqual(ask(gateway.port, "DELETE", f"/workers/{ids[engine.url]}").status, 200)  # gone already
        back = ask(gateway.port, "POST", "/workers", {"url": engines[0].url}).json()
        self.assertNotIn(back["id"], ids.values())  # a number is one worker's for ever
        wait_until(lambda: engines[0].stats()["received"] > received, what="a request to the worker that came back")
        self.good(traffic)

    def test_leaving_waits_for_streams(self):
        engines = [self.engine(itl="20ms"), self.engine()]
        gateway = self.gateway(engines[:1])
        with rig.Connection(gateway.port) as connection:
            connection.send(rig.request_bytes("POST", "/v1/chat/completions", chat(stream=True, tokens=100)))
            wait_until(lambda: engines[0].stats()["active"] == 1, what="a stream")
            ask(gateway.port, "POST", "/workers", {"url": engines[1].url})
            wait_until(lambda: self.workers(gateway)[engines[1].url]["is_healthy"], what="a second worker")
            ask(gateway.port, "DELETE", f"/workers?url={engines[0].url}")
            self.assertEqual(self.workers(gateway)[engines[0].url]["state"], "leaving")
            for _ in range(5):
                self.assertEqual(ask_chat(gateway.port).status, 200)
            answer = connection.answer()
            self.assertEqual(answer.events()[-1], "[DONE]")
        self.assertEqual(engines[0].stats()["received"], 1)
        wait_until(lambda: engines[0].url not in self.workers(gateway), what="a worker that has left")

    def test_cordon_drain_and_refusals_with_a_way_out(self):
        engines = [self.engine() for _ in range(2)]
        gateway = self.gateway(engines)
        wait_until(lambda: all(w["is_healthy"] for w in self.workers(gateway).values()), what="two workers")
        worker = self.workers(gateway)[engines[0].url]["id"]
        for verb, state in (("cordon", "cordoned"), ("drain", "draining")):
            for status in ("changed", "so already"):
                answer = ask(gateway.port, "POST", f"/workers/{worker}/{verb}").json()
                self.assertEqual((answer["state"], answer["status"]), (state, status))
            before = engines[0].stats()["received"]
            for _ in range(10):
                self.assertEqual(ask_chat(gateway.port).status, 200)
            self.assertEqual(engines[0].stats()["received"], before)
        self.assertEqual(ask(gateway.port, "POST", f"/workers/{worker}/uncordon").json()["status"], "changed")
        unknown = ask(gateway.port, "DELETE", "/workers/http%3A%2F%2F127.0.0.1%3A1")
        self.assertEqual(unknown.status, 404)
        self.assertIn(engines[0].url, unknown.error()["message"])  # which there are
        self.assertIn("http://127.0.0.1:8000", ask(gateway.port, "POST", "/workers", {"url": "ftp://x"}).error()["message"])
        self.assertIn("url", ask(gateway.port, "POST", "/workers", {"kind": "h100"}).error()["message"])

    def test_a_new_worker_is_tried_by_requests_in_turn(self):
        """The one that is there answers at once, so that nothing but a probe would ever reach the new one."""
        engines = [self.engine(ttft="1ms", itl="0") for _ in range(2)]
        gateway = self.gateway(engines[:1])
        for _ in range(50):
            self.assertEqual(ask_chat(gateway.port, stream=True).status, 200)
        ask(gateway.port, "POST", "/workers", {"url": engines[1].url})

        def tried():
            self.assertEqual(ask_chat(gateway.port, stream=True).status, 200)
            return engines[1].stats()["received"] >= 3

        report("three requests in a row reached a new worker after", wait_until(tried, what="probing requests"))
        self.assertGreater(rig.metric(gateway.port, "foretoken:probing_requests_total"), 0)

    def test_a_slow_worker_that_joins_is_not_flooded(self):
        """Its speed is unknown: it gets little until it has been seen."""
        engines = [self.engine() for _ in range(3)] + [self.engine(ttft="400ms", itl="50ms")]
        gateway = self.gateway(engines[:3])
        traffic = self.traffic(gateway, clients=24)
        traffic.more(200)
        ask(gateway.port, "POST", "/workers", {"url": engines[3].url})
        wait_until(lambda: engines[3].stats()["completed"] >= 2, what="requests to the slow worker")
        self.assertLessEqual(engines[3].stats()["max_active"], 8)  # 24 clients; the window begins with 2
        self.good(traffic)

    def test_rolling_restart_of_every_engine(self):
        engines = [self.engine() for _ in range(3)]
        gateway = self.gateway(engines)
        traffic = self.traffic(gateway)
        traffic.more()
        for index, engine in enumerate(engines):
            worker = self.workers(gateway)[engine.url]["id"]
            ask(gateway.port, "POST", f"/workers/{worker}/drain")
            wait_until(lambda: self.workers(gateway)[engine.url]["under_way"] == 0, what="a drained worker")
            engines[index] = engine.restarted()
            self.addCleanup(engines[index].close)
            ask(gateway.port, "POST", f"/workers/{worker}/uncordon")
            report("a restarted engine is used again after", wait_until(lambda: engines[index].stats()["received"] > 0))
        self.good(traffic)

    def test_an_address_that_another_model_takes(self):
        """One of two engines ends and one of another model listens in its place, under load and at once: no request of the old model reaches it."""
        engines = [self.engine() for _ in range(2)]
        gateway = self.gateway(engines)
        traffic = self.traffic(gateway)
        traffic.more()
        old = self.workers(gateway)[engines[1].url]
        worker = old["id"]
        ask(gateway.port, "POST", f"/workers/{worker}/drain")  # as whoever takes it away should
        wait_until(lambda: self.workers(gateway)[engines[1].url]["under_way"] == 0, what="a drained worker")
        port = engines[1].port
        engines[1].close()
        other = rig.Engine(port, "another-model", ttft="5ms", itl="2ms")
        self.addCleanup(other.close)
        ask(gateway.port, "POST", f"/workers/{worker}/uncordon")
        wait_until(lambda: self.workers(gateway).get(other.url, {}).get("models") == ["another-model"], what="the other model")
        self.assertNotEqual(self.workers(gateway)[other.url]["id"], worker)  # another instance, with a mirror of its own
        answer = ask(gateway.port, "POST", "/v1/chat/completions", {**chat(), "model": "another-model"})
        self.assertEqual(answer.status, 200, answer.body)
        traffic.more()
        self.assertEqual(other.stats()["received"], 1)
        names = [m["id"] for m in ask(gateway.port, "GET", "/v1/models").json()["data"]]
        self.assertEqual(sorted(names), ["another-model", rig.MODEL])
        self.good(traffic)

    def test_an_idle_address_that_another_model_takes_unseen(self):
        """Nobody asked for seconds and no probe saw the change: the next request asks first what is there."""
        engine = self.engine()
        gateway = self.gateway([engine, self.engine()], policy="round_robin")
        for _ in range(6):
            self.assertEqual(ask_chat(gateway.port).status, 200)
        port = engine.port
        engine.close()
        other = rig.Engine(port, "another-model")
        self.addCleanup(other.close)
        for _ in range(20):
            self.assertEqual(ask_chat(gateway.port).status, 200)
        self.assertEqual(other.stats()["received"], 0)

    def test_the_last_engine_of_a_model_takes_its_name_along(self):
        engines = [self.engine(), rig.Engine(0, "rare")]
        self.addCleanup(engines[1].close)
        gateway = self.gateway(engines)
        rare = {**chat(), "model": "rare"}
        wait_until(lambda: ask(gateway.port, "POST", "/v1/chat/completions", rare).status == 200, what="the rare model")
        ask(gateway.port, "DELETE", f"/workers?url={engines[1].url}")
        wait_until(lambda: engines[1].url not in self.workers(gateway), what="a worker that has left")
        self.assertEqual(ask(gateway.port, "POST", "/v1/chat/completions", rare).status, 404)

    def test_a_watched_file(self):
        engines = [self.engine() for _ in range(3)]
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        path = os.path.join(folder, "workers")

        def write(*lines):
            with open(path + ".new", "w") as out:
                out.write("\n".join(lines) + "\n")
            os.rename(path + ".new", path)

        write("# our engines", engines[0].url, engines[1].url)
        gateway = rig.Process("gateway", "--port", 0, "--prometheus-port", 0, "--policy", "min_e2e", "--workers-file", path)
        self.addCleanup(gateway.close)
        traffic = self.traffic(gateway)
        traffic.more()
        self.assertEqual(set(self.workers(gateway)), {e.url for e in engines[:2]})
        write(engines[1].url, engines[2].url)
        report("a changed file is followed after",
               wait_until(lambda: set(self.workers(gateway)) == {e.url for e in engines[1:]}, what="the file's workers"))
        for bad in (("http://127.0.0.1:99999",), ("# nothing",), (engines[1].url, "http://[::1")):
            refused = rig.metric(gateway.port, "foretoken:worker_lists_refused_total")
            write(*bad)
            wait_until(lambda: rig.metric(gateway.port, "foretoken:worker_lists_refused_total") > refused, what="a refusal")
            self.assertEqual(set(self.workers(gateway)), {e.url for e in engines[1:]})
            self.assertIn("nothing changes", gateway.error_text())
        os.remove(path)
        wait_until(lambda: "cannot be read" in gateway.error_text(), what="a complaint")
        traffic.more()
        write(engines[0].url)
        wait_until(lambda: set(self.workers(gateway)) == {engines[0].url}, what="the file's worker")
        self.good(traffic)

    def test_dns_names_are_followed(self):
        """In a mount namespace of its own the gateway has a hosts file that the test writes."""
        if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode != 0:
            self.skipTest("no mount namespaces here (unshare -rm)")
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        hosts = os.path.join(folder, "hosts")

        def write(*addresses):  # in place: it is mounted
            with open(hosts, "w") as out:
                out.write("".join(f"{a} engines.test\n" for a in addresses))

        first = self.engine()
        second = rig.Engine(first.port, host="127.0.0.2", ttft="5ms", itl="2ms")
        self.addCleanup(second.close)
        write("127.0.0.1")
        program, rig.PROGRAM = rig.PROGRAM, "unshare"
        try:
            gateway = rig.Process("-rm", "sh", "-c", f"mount --bind {hosts} /etc/hosts && exec {program} \"$@\"", "sh", "gateway",
                                  "--port", 0, "--prometheus-port", 0, "--policy", "min_e2e", "--dns-interval-secs", 0.3,
                                  "--workers-dns", f"http://engines.test:{first.port}")
        finally:
            rig.PROGRAM = program
        self.addCleanup(gateway.close)
        traffic = self.traffic(gateway)
        traffic.more()
        addresses = [f"http://127.0.0.{n}:{first.port}" for n in (1, 2)]
        self.assertEqual(list(self.workers(gateway)), addresses[:1])
        write("127.0.0.1", "127.0.0.2")
        wait_until(lambda: sorted(self.workers(gateway)) == addresses, what="the second address")
        wait_until(lambda: second.stats()["received"] > 0, what="a request to the second address")
        write("127.0.0.2")
        wait_until(lambda: list(self.workers(gateway)) == addresses[1:], what="the second address alone")
        write()  # an outage of DNS empties no fleet
        wait_until(lambda: "nothing changes" in gateway.error_text(), what="a complaint")
        traffic.more()
        self.assertEqual(list(self.workers(gateway)), addresses[1:])
        self.good(traffic)

    def test_it_ends_soon_after_its_last_stream(self):
        engine = self.engine(itl="10ms")
        gateway = self.gateway([engine])
        with rig.Connection(gateway.port) as connection:
            connection.send(rig.request_bytes("POST", "/v1/chat/completions", chat(stream=True, tokens=50)))
            wait_until(lambda: engine.stats()["active"] == 1, what="a stream")
            gateway.send_signal(15)
            self.assertEqual(connection.answer().events()[-1], "[DONE]")
            ended = time.monotonic()
            self.assertEqual(gateway.wait(), 0)  # although the client keeps its side open
            report("it ended after its last stream by", time.monotonic() - ended)


if __name__ == "__main__":
    unittest.main()
