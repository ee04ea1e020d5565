#!/usr/bin/env python3
"""Many bad clients at once: the good ones are still served, everything bad is refused or ended, and nothing is kept of it."""
import asyncio
import resource
import time
import unittest

from tests.integration.gateway import rig
from tests.integration.gateway.rig import ask_chat, chat, report, request_bytes

SLOW_CLIENTS = 10_000


def raise_descriptor_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class FloodTest(unittest.TestCase):
    def start(self, *flags):
        engine = rig.Engine(ttft="1ms")
        self.addCleanup(engine.close)
        gateway = rig.Gateway([engine], *flags)
        self.addCleanup(gateway.close)
        return engine, gateway

    def test_ten_thousand_slow_clients(self):
        if raise_descriptor_limit() < SLOW_CLIENTS + 500:
            self.skipTest(f"needs {SLOW_CLIENTS + 500} open files: ulimit -n")
        _, gateway = self.start("--header-timeout-secs", 8)
        self.assertEqual(ask_chat(gateway.port).status, 200)
        before = gateway.descriptors()

        async def run():
            gate = asyncio.Semaphore(200)
            ended = 0

            async def slow():
                nonlocal ended
                async with gate:
                    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
                writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nX-Slow: ")
                try:
                    while await reader.read(4_096):
                        pass
                except ConnectionError:
                    pass
                ended += 1
                writer.close()

            begun = time.monotonic()
            tasks = [asyncio.create_task(slow()) for _ in range(SLOW_CLIENTS)]
            good, worst, most = 0, 0.0, 0
            while ended < SLOW_CLIENTS:
                self.assertLess(time.monotonic() - begun, 60)
                asked = time.monotonic()
                answer = await asyncio.to_thread(ask_chat, gateway.port)
                self.assertEqual(answer.status, 200)
                good += 1
                worst = max(worst, time.monotonic() - asked)
                most = max(most, gateway.descriptors())
                await asyncio.sleep(0.05)
            await asyncio.gather(*tasks)
            print(f"[measured] {SLOW_CLIENTS} slow clients: up to {most} descriptors; {good} good requests meanwhile, the slowest "
                  f"{worst * 1e3:.0f} ms; all ended after {time.monotonic() - begun:.1f} s; peak RSS {gateway.peak_rss_mb():.0f} MB")
            self.assertGreater(good, 5)
            self.assertGreater(most, SLOW_CLIENTS // 2)

        asyncio.run(run())
        report("their connections are gone after", rig.wait_until(lambda: gateway.descriptors() <= before + 5, what="no leak"))
        if rig.PLAIN:
            self.assertLess(gateway.peak_rss_mb(), 400)

    def test_malformed_requests_leave_nothing_behind(self):
        engine, gateway = self.start()
        bad = [b"nonsense\r\n\r\n", b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
               request_bytes("POST", "/v1/chat/completions", b"{"), request_bytes("POST", "/v1/chat/completions", b"[]"),
               request_bytes("POST", "/v1/chat/completions", b'{"model":"fake-model","messages":' + b"[" * 5_000),
               b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
               b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 50 + b"\r\n", b"\r\n" * 100, b"\x00" * 5_000]
        self.assertEqual(ask_chat(gateway.port).status, 200)
        for round_ in range(4):
            if round_ == 1:
                settled, files = gateway.rss_mb(), gateway.descriptors()
            for request in bad * 25:
                with rig.Connection(gateway.port) as connection:
                    connection.send(request)
                    connection.socket.shutdown(1)
                    self.assertTrue(connection.closed_by_peer())
        rig.wait_until(lambda: gateway.descriptors() <= files + 2, what="no leaked descriptor")
        print(f"[measured] {len(bad) * 75} malformed requests: RSS grew by {gateway.rss_mb() - settled:.1f} MB")
        if rig.PLAIN:
            self.assertLess(gateway.rss_mb() - settled, 8)
        self.assertEqual(engine.stats()["received"], 1)
        self.assertEqual(ask_chat(gateway.port).status, 200)

    def test_floods_of_headers_and_bodies_stay_bounded(self):
        _, gateway = self.start("--max-payload-size", 1 << 20)
        self.assertEqual(ask_chat(gateway.port).status, 200)
        before = gateway.rss_mb()
        endless = b"GET /v1/models HTTP/1.1\r\nHost: g\r\n" + b"X-Flood: " + b"z" * 1_000 + b"\r\n"
        connections = [rig.Connection(gateway.port) for _ in range(100)]
        refused = 0
        for connection in connections:
            try:
                connection.send(endless)
                for _ in range(100):
                    connection.send(b"X-Flood: " + b"z" * 1_000 + b"\r\n")
            except ConnectionError:
                pass
            refused += connection.closed_by_peer()
            connection.close()
        self.assertEqual(refused, 100)
        for _ in range(30):  # a chunked body that never ends
            with rig.Connection(gateway.port) as connection:
                try:
                    connection.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n")
                    for _ in range(40):
                        connection.send(b"10000\r\n" + b"a" * 65_536 + b"\r\n")
                except ConnectionError:
                    pass
                self.assertTrue(connection.closed_by_peer())
        print(f"[measured] floods of headers and bodies: RSS grew by {gateway.rss_mb() - before:.1f} MB")
        if rig.PLAIN:
            self.assertLess(gateway.rss_mb() - before, 40)
        self.assertEqual(ask_chat(gateway.port).status, 200)

    def test_clients_that_come_and_go_leave_nothing_behind(self):
        engine, gateway = self.start()
        engine.set(ttft="200ms")
        self.assertEqual(ask_chat(gateway.port).status, 200)
        before = gateway.descriptors()
        for _ in range(200):
            with rig.Connection(gateway.port) as connection:
                connection.send(request_bytes("POST", "/v1/chat/completions", chat(stream=True)))
        rig.wait_until(lambda: engine.stats()["active"] == 0, what="an idle engine")
        rig.wait_until(lambda: gateway.descriptors() <= before + 2, what="no leaked descriptor")
        self.assertEqual(ask_chat(gateway.port).status, 200)


if __name__ == "__main__":
    unittest.main()
