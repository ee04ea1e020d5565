#!/usr/bin/env python3
"""What a client of the gateway sees, one case after another, against the real program over two fake engines."""
import json
import unittest

from tests.integration.gateway import rig
from tests.integration.gateway.rig import MODEL, ask, ask_chat, chat, request_bytes

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


class InterfaceTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.engines = [rig.Engine(ttft="2ms", itl="1ms") for _ in range(2)]
        cls.gateway = rig.Gateway(cls.engines, "--max-payload-size", 1 << 20)
        cls.port = cls.gateway.port

    @classmethod
    def tearDownClass(cls):
        for process in [cls.gateway, *cls.engines]:
            process.close()

    def setUp(self):
        for engine in self.engines:
            engine.set(mode="ok", ttft="2ms", itl="1ms", health="ok", pad=0)
            engine.reset()

    def received(self):
        return sum(engine.stats()["received"] for engine in self.engines)

    def many_at_once(self, count):
        """So many requests open together, all answered."""
        connections = [rig.Connection(self.port) for _ in range(count)]
        for connection in connections:
            connection.send(request_bytes("POST", CHAT, chat(stream=True, tokens=30)))
        statuses = [connection.answer().status for connection in connections]
        for connection in connections:
            connection.close()
        return statuses == [200] * count

    def last(self):
        """Head and body of the one request that an engine got."""
        [stats] = [s for engine in self.engines if (s := engine.stats())["received"] == 1]
        return stats["last_head"].lower(), stats["last_body"]

    def assert_refused(self, answer, status, *, param=None, code=None, kind="invalid_request_error"):
        """An OpenAI error of the gateway itself; no engine was asked."""
        self.assertEqual(answer.status, status, answer.body)
        self.assertTrue(answer.headers["content-type"].startswith("application/json"), answer.headers)
        error = answer.error()
        self.assertGreaterEqual(set(error), {"message", "type", "param", "code"})
        self.assertGreater(len(error["message"]), 10)
        if kind:
            self.assertEqual(error["type"], kind, error)
        if param:
            self.assertEqual(error["param"], param, error)
        if code:
            self.assertEqual(error["code"], code, error)
        self.assertEqual(self.received(), 0)

    # ---- Answers.
    def test_whole_chat_answer(self):
        answer = ask_chat(self.port, tokens=3)
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.json()["object"], "chat.completion")
        self.assertEqual(answer.json()["usage"]["completion_tokens"], 3)

    def test_streamed_chat_answer(self):
        events = ask_chat(self.port, stream=True, tokens=5).events()
        self.assertEqual(events[-1], "[DONE]")
        texts = [json.loads(e)["choices"][0]["delta"].get("content", "") for e in events[:-1]]
        self.assertEqual(len([t for t in texts if t]), 5)

    def test_whole_completion(self):
        answer = ask(self.port, "POST", COMPLETIONS, {"model": MODEL, "prompt": "hello", "max_tokens": 2})
        self.assertEqual((answer.status, answer.json()["object"]), (200, "text_completion"))

    def test_streamed_completion(self):
        answer = ask(self.port, "POST", COMPLETIONS, {"model": MODEL, "prompt": "hello", "max_tokens": 2, "stream": True})
        self.assertEqual((answer.status, answer.events()[-1]), (200, "[DONE]"))
        self.assertTrue(answer.headers["content-type"].startswith("text/event-stream"))

    def test_prompt_of_token_ids(self):
        answer = ask(self.port, "POST", COMPLETIONS, {"model": MODEL, "prompt": [1, 2, 3], "max_tokens": 2})
        self.assertEqual(answer.status, 200, answer.body)

    def test_several_prompts_in_one_request(self):
        for prompt in (["one", "two"], [[1, 2], [3]]):
            answer = ask(self.port, "POST", COMPLETIONS, {"model": MODEL, "prompt": prompt, "max_tokens": 2})
            self.assertEqual(answer.status, 200, answer.body)

    def test_usage_comes_when_asked_for(self):
        events = ask_chat(self.port, stream=True, stream_options={"include_usage": True}).events()
        self.assertEqual(json.loads(events[-2])["usage"]["completion_tokens"], 4)

    def test_usage_does_not_come_when_not_asked_for(self):
        events = ask_chat(self.port, stream=True).events()
        self.assertFalse([e for e in events if "usage" in e])

    def test_tokens_come_as_the_engine_sends_them(self):
        for engine in self.engines:
            engine.set(itl="100ms")
        with rig.Connection(self.port) as connection:
            connection.send(request_bytes("POST", CHAT, chat(stream=True, tokens=3)))
            _, headers = connection.head()
            first = next(connection.pieces(headers))
        self.assertEqual(first.count(b"data: "), 1)  # the others had not been sent yet

    # ---- Requests reach the engine as they were.
    def test_the_body_arrives_byte_for_byte(self):
        body = (b'{ "model" : "fake-model",\t"priority": 3, "unknown_field": {"x": [1, 2.50, null]}, "max_tokens": 2,\n'
                b'"messages": [{"role": "user", "content": "caf\\u00e9 \xf0\x9f\x98\x80"}], "n": 1, "stop": ["a"], "seed": 7,'
                b' "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}], "tool_choice": "auto" }')
        self.assertEqual(ask(self.port, "POST", CHAT, body).status, 200)
        self.assertEqual(self.last()[1].encode(), body)

    def test_a_streamed_request_body_arrives_byte_for_byte(self):
        body = json.dumps(chat(tokens=2)).encode()
        with rig.Connection(self.port) as connection:
            connection.send(b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n")
            for i in range(0, len(body), 7):
                piece = body[i:i + 7]
                connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            connection.send(b"0\r\n\r\n")
            self.assertEqual(connection.answer().status, 200)
        self.assertEqual(self.last()[1].encode(), body)

    def test_user_and_tracing_headers_pass(self):
        sent = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "x-session-id": "s1",
                "x-user-id": "u1", "x-custom": "kept", "openai-organization": "o"}
        self.assertEqual(ask_chat(self.port, sent).status, 200)
        head, _ = self.last()
        for name, value in sent.items():
            self.assertIn(f"{name}: {value}", head)

    def test_hop_by_hop_headers_do_not_pass(self):
        self.assertEqual(ask_chat(self.port, {"Connection": "keep-alive, x-hop", "X-Hop": "1", "TE": "trailers"}).status, 200)
        head, _ = self.last()
        self.assertNotIn("x-hop:", head)
        self.assertNotIn("te: trailers", head)

    def test_a_request_id_is_echoed_and_passed(self):
        answer = ask_chat(self.port, {"X-Request-Id": "my-id-1"})
        self.assertEqual(answer.headers["x-request-id"], "my-id-1")
        self.assertIn("x-request-id: my-id-1", self.last()[0])

    def test_a_request_without_an_id_gets_one(self):
        ids = {ask_chat(self.port).headers["x-request-id"] for _ in range(3)}
        self.assertEqual(len(ids), 3)

    def test_slo_and_length_hints_are_accepted(self):
        answer = ask_chat(self.port, {"x-slo-ttft-ms": "500", "x-slo-tpot-ms": "50", "x-output-length-hint": "100"})
        self.assertEqual(answer.status, 200)

    # ---- What is asked of the gateway itself.
    def test_models(self):
        answer = ask(self.port, "GET", "/v1/models")
        self.assertEqual((answer.status, answer.json()["object"]), (200, "list"))
        self.assertEqual([m["id"] for m in answer.json()["data"]], [MODEL])

    def test_health_liveness_readiness(self):
        for path in ("/health", "/liveness", "/readiness"):
            self.assertEqual(ask(self.port, "GET", path).status, 200, path)

    def test_workers_and_loads_name_every_engine(self):
        for path in ("/workers", "/get_loads"):
            text = ask(self.port, "GET", path).body.decode()
            for engine in self.engines:
                self.assertIn(str(engine.port), text, path)

    def test_metrics_are_prometheus_text(self):
        ask_chat(self.port)
        answer = ask(self.port, "GET", "/metrics")
        self.assertTrue(answer.headers["content-type"].startswith("text/plain"))
        text = answer.body.decode()
        self.assertIn("# TYPE", text)
        self.assertIn("foretoken:", text)
        self.assertIn("_bucket{", text)  # histograms of TTFT and gaps

    def test_a_worker_comes_and_goes(self):
        engine = rig.Engine(ttft="1ms")
        try:
            self.assertIn(ask(self.port, "POST", "/workers", {"url": engine.url}).status, (200, 201, 202))
            rig.wait_until(lambda: self.many_at_once(40) and engine.stats()["received"] > 0, what="a request to the new engine")
            self.assertIn(ask(self.port, "DELETE", f"/workers?url={engine.url}").status, (200, 202, 204))
            rig.wait_until(lambda: str(engine.port) not in ask(self.port, "GET", "/workers").body.decode(), what="a worker that has left")
            engine.reset()
            for _ in range(10):
                self.assertEqual(ask_chat(self.port).status, 200)
            self.assertEqual(engine.stats()["received"], 0)
        finally:
            engine.close()

    # ---- Connections.
    def test_one_connection_serves_many_requests(self):
        with rig.Connection(self.port) as connection:
            for stream in (True, False, True):
                connection.send(request_bytes("POST", CHAT, chat(stream=stream)))
                self.assertEqual(connection.answer().status, 200)

    def test_pipelined_requests_are_answered_in_order(self):
        with rig.Connection(self.port) as connection:
            connection.send(b"".join(request_bytes("POST", CHAT, chat(), {"X-Request-Id": f"p{i}"}) for i in range(3)))
            self.assertEqual([connection.answer().headers["x-request-id"] for _ in range(3)], ["p0", "p1", "p2"])

    def test_connection_close_is_honoured(self):
        with rig.Connection(self.port) as connection:
            connection.send(request_bytes("POST", CHAT, chat(), {"Connection": "close"}))
            self.assertEqual(connection.answer().status, 200)
            self.assertTrue(connection.closed_by_peer())

    def test_expect_100_continue(self):
        body = json.dumps(chat()).encode()
        with rig.Connection(self.port) as connection:
            connection.send(f"POST {CHAT} HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            while b"\r\n\r\n" not in connection.buffer:
                self.assertTrue(connection.more())
            self.assertTrue(connection.buffer.startswith(b"HTTP/1.1 100"), connection.buffer)
            connection.send(body)
            self.assertEqual(connection.answer().status, 200)

    def test_a_request_in_single_bytes_is_served(self):
        with rig.Connection(self.port) as connection:
            for byte in request_bytes("POST", CHAT, chat(tokens=1)):
                connection.send(bytes([byte]))
            self.assertEqual(connection.answer().status, 200)

    # ---- The engines' own errors.
    def test_an_engines_refusal_passes_unchanged(self):
        for engine in self.engines:
            engine.set(mode="400")
        answer = ask_chat(self.port)
        self.assertEqual((answer.status, answer.error()["message"]), (400, "fake engine 400"))
        self.assertEqual(self.received(), 1)  # the request is at fault: nowhere else to try

    def test_an_error_event_within_a_stream_passes(self):
        for engine in self.engines:
            engine.set(mode="errevent", die_after=2)
        events = ask_chat(self.port, stream=True).events()
        self.assertEqual(json.loads(events[-1])["error"]["message"], "fake engine error")
        self.assertNotIn("[DONE]", events)

    # ---- Refused by the gateway.
    def test_unknown_model(self):
        self.assert_refused(ask_chat(self.port, model="no-such-model"), 404, param="model", code="model_not_found", kind=None)

    def test_malformed_json(self):
        for body in (b"{", b"nonsense", b'{"model": "fake-model",}', b'{"model": "fake-model"} trailing', b"\x00\x01"):
            with self.subTest(body=body):
                self.assert_refused(ask(self.port, "POST", CHAT, body), 400)

    def test_empty_body(self):
        self.assert_refused(ask(self.port, "POST", CHAT), 400)

    def test_a_body_that_is_no_object(self):
        for body in (b"[]", b"7", b'"text"', b"null"):
            with self.subTest(body=body):
                self.assert_refused(ask(self.port, "POST", CHAT, body), 400)

    def test_missing_model(self):
        self.assert_refused(ask(self.port, "POST", CHAT, b"{}"), 400, param="model")
        self.assert_refused(ask(self.port, "POST", CHAT, {"model": 7, "messages": []}), 400, param="model")

    def test_missing_messages_or_prompt(self):
        self.assert_refused(ask(self.port, "POST", CHAT, {"model": MODEL}), 400, param="messages")
        self.assert_refused(ask(self.port, "POST", COMPLETIONS, {"model": MODEL}), 400, param="prompt")

    def test_fields_of_the_wrong_type(self):
        for field, value in (("stream", "yes"), ("max_tokens", "many"), ("max_tokens", -1), ("messages", "hello"), ("n", 0)):
            with self.subTest(field=field, value=value):
                self.assert_refused(ask_chat(self.port, **{field: value} if field != "max_tokens" else {"tokens": value}), 400,
                                    param=field)

    def test_deep_nesting(self):
        body = b'{"model": "fake-model", "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        self.assert_refused(ask(self.port, "POST", CHAT, body), 400)

    def test_invalid_utf8(self):
        body = b'{"model": "fake-model", "messages": [{"role": "user", "content": "\xff\xfe\xc3"}]}'
        self.assert_refused(ask(self.port, "POST", CHAT, body), 400)

    def test_unknown_path(self):
        self.assert_refused(ask(self.port, "GET", "/v2/nothing"), 404)

    def test_wrong_method(self):
        answer = ask(self.port, "GET", CHAT)
        self.assert_refused(answer, 405)
        self.assertIn("POST", answer.headers["allow"])

    def test_a_body_over_the_limit(self):
        self.assert_refused(ask_chat(self.port, text="x" * (2 << 20)), 413)

    def test_a_declared_length_over_the_limit_is_refused_before_the_body(self):
        with rig.Connection(self.port) as connection:
            connection.send(f"POST {CHAT} HTTP/1.1\r\nHost: g\r\nContent-Length: {256 << 20}\r\n\r\n".encode())
            self.assert_refused(connection.answer(), 413)

    def test_contradictory_framing(self):
        for fields in (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"Content-Length: 5\r\nContent-Length: 6\r\n",
                       b"Content-Length: -1\r\n", b"Content-Length: 5x\r\n", b"Transfer-Encoding: gzip\r\n"):
            with self.subTest(fields=fields), rig.Connection(self.port) as connection:
                connection.send(b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: g\r\n" + fields + b"\r\nhello")
                self.assert_refused(connection.answer(), 400)
                self.assertTrue(connection.closed_by_peer())  # nobody knows where the next request begins

    def test_headers_over_the_limit(self):
        answer = ask_chat(self.port, {"X-Large": "y" * 65_536})
        self.assertIn(answer.status, (400, 431))
        self.assert_refused(answer, answer.status)

    def test_garbage_instead_of_http(self):
        for garbage in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50 + b"\r\n\r\n", b"HELLO\r\n\r\n",
                        b"GET / HTTP/9.9\r\nHost: g\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/1.1\r\nBad Field: x\r\n : \r\n\r\n"):
            with self.subTest(garbage=garbage), rig.Connection(self.port) as connection:
                connection.send(garbage)
                status, _ = connection.head()
                self.assertIn(status, (400, 505))

    def test_control_characters_in_a_header_do_not_pass(self):
        with rig.Connection(self.port) as connection:
            connection.send(b"GET /v1/models HTTP/1.1\r\nHost: g\r\nX-A: b\x00c\r\n\r\n")
            self.assertEqual(connection.head()[0], 400)


class KeyedInterfaceTest(unittest.TestCase):
    """A gateway that wants API keys and lets few requests in at once."""

    @classmethod
    def setUpClass(cls):
        cls.engine = rig.Engine(ttft="300ms")
        cls.gateway = rig.Gateway([cls.engine], "--api-key", "secret-1", "--max-concurrent-requests", 2, "--queue-size", 1,
                                  "--queue-timeout-secs", 10)
        cls.port = cls.gateway.port

    @classmethod
    def tearDownClass(cls):
        cls.gateway.close()
        cls.engine.close()

    def test_a_wrong_or_missing_key_is_401(self):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret-1"}, {"Authorization": "Basic c2VjcmV0LTE="}):
            answer = ask_chat(self.port, headers)
            self.assertEqual((answer.status, answer.error()["code"]), (401, "invalid_api_key"), headers)

    def test_the_right_key_is_served_and_health_needs_none(self):
        self.assertEqual(ask_chat(self.port, {"Authorization": "Bearer secret-1"}).status, 200)
        self.assertEqual(ask(self.port, "GET", "/health").status, 200)

    def test_more_than_the_queue_holds_are_told_to_come_back(self):
        key = {"Authorization": "Bearer secret-1"}
        connections = [rig.Connection(self.port) for _ in range(8)]
        try:
            for connection in connections:
                connection.send(request_bytes("POST", CHAT, chat(), key))
            answers = [connection.answer() for connection in connections]
        finally:
            for connection in connections:
                connection.close()
        refused = [a for a in answers if a.status in (429, 503)]
        self.assertEqual(len([a for a in answers if a.status == 200]), 3)  # two at once and one that waited
        self.assertEqual(len(refused), 5)
        for answer in refused:
            self.assertGreaterEqual(int(answer.headers["retry-after"]), 1)
            self.assertIn("message", answer.error())


class SeveralModelsTest(unittest.TestCase):
    """Two models behind one address."""

    @classmethod
    def setUpClass(cls):
        cls.engines = {model: rig.Engine(model=model, ttft="1ms") for model in ("model-a", "model-b")}
        cls.gateway = rig.Gateway(cls.engines.values(), "--decision-headers")

    @classmethod
    def tearDownClass(cls):
        for process in [cls.gateway, *cls.engines.values()]:
            process.close()

    def test_each_request_goes_to_an_engine_of_its_model(self):
        for model, engine in self.engines.items():
            engine.reset()
            for _ in range(5):
                answer = ask_chat(self.gateway.port, model=model)
                self.assertEqual(answer.json()["model"], model)
            self.assertEqual(engine.stats()["received"], 5)

    def test_models_lists_both(self):
        listed = ask(self.gateway.port, "GET", "/v1/models").json()["data"]
        self.assertEqual({m["id"] for m in listed}, set(self.engines))

    def test_the_decision_is_told_when_asked_for(self):
        answer = ask_chat(self.gateway.port, model="model-a")
        self.assertIn(str(self.engines["model-a"].port), answer.headers["x-foretoken-instance"])

    def test_a_known_model_without_a_live_engine_is_503_not_404(self):
        engine = rig.Engine(model="model-c", ttft="1ms")
        gateway = rig.Gateway([*self.engines.values(), engine])
        try:
            self.assertEqual(ask_chat(gateway.port, model="model-c").status, 200)
            engine.kill()
            answer = ask_chat(gateway.port, model="model-c")
            self.assertIn(answer.status, (502, 503), answer.body)
            rig.wait_until(lambda: ask_chat(gateway.port, model="model-c").status == 503, what="503 for model-c")
            self.assertIn("retry-after", ask_chat(gateway.port, model="model-c").headers)
            self.assertEqual(ask_chat(gateway.port, model="model-a").status, 200)
        finally:
            gateway.close()
            engine.close()


if __name__ == "__main__":
    unittest.main()
