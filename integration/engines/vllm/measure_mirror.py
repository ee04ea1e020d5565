#!/usr/bin/env python3
"""Is the mirror of a live vLLM server exact? One unmodified server (CPU build, tiny model) with foretoken_vllm behind `foretoken gateway`.

    integration/engines/vllm/measure_mirror.py --minutes 10 [--policy priority] [--loss .01 --reorder .05 --delay-ms 20] [--kill]

The load: Poisson in bursts, half of it with shared prefixes, follow-up turns that go on from an answer, clients that leave, other clients'
requests past the gateway, more KV than there is (preemptions). About once a second the server is made to send an exact snapshot, which
the gateway compares with its shadow block for block. The sync link runs over a proxy that may lose, swap and delay frames. Prints one
JSON object: what the gateway says of the mirror, preemptions, failures. Needs what vllm_engine.py sets up.
"""
import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(HERE), str(HERE / "python")]
import live_server  # noqa: E402

FLAGS = ("--max-model-len", "2048", "--max-num-seqs", "32", "--max-num-batched-tokens", "512", "--num-gpu-blocks-override", "160",
         "--block-size", "32")


def free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Gateway:
    def __init__(self, program, urls, *flags):
        command = [program, "gateway", "--worker-urls", *urls, "--port", "0", "--prometheus-port", "0", "--sync-listen", "tcp:127.0.0.1:0",
                   "--drain-timeout-secs", "5", *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "FORETOKEN_ROOT": str(ROOT)})
        self.url = self.process.stdout.readline().split()[-1]
        self.sync_port = int(self.process.stdout.readline().split()[-1])

    def workers(self):
        with urllib.request.urlopen(self.url + "/workers", timeout=10) as answer:
            return json.load(answer)["workers"]

    def close(self):
        self.process.terminate()
        self.process.wait(30)


class Link:
    """Between plugins and the gateway: frames are lost, swapped and delayed; snapshots are asked for."""

    def __init__(self, to_port, seed, loss=0.0, reorder=0.0, delay=0.0, ask_every=1.0):
        from foretoken_vllm import wire

        self.wire, self.to_port, self.rng = wire, to_port, random.Random(seed)
        self.loss, self.reorder, self.delay, self.ask_every = loss, reorder, delay, ask_every
        self.lost, self.swapped, self.asked = 0, 0, 0

    async def start(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self.server.sockets[0].getsockname()[1]

    async def _serve(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.to_port)
            tasks = [asyncio.create_task(t) for t in (self._frames(reader, up_writer), self._bytes(up_reader, writer), self._ask(writer))]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            up_writer.close()
        writer.close()

    async def _bytes(self, reader, writer):
        while data := await reader.read(65536):
            writer.write(data)

    async def _ask(self, writer):
        frame = self.wire.schema().Frame.new_message()
        frame.init("resyncRequest").exact = True
        frame = frame.to_bytes()
        while True:
            await asyncio.sleep(self.ask_every * (0.5 + self.rng.random()))
            writer.write(frame)
            self.asked += 1

    async def _frames(self, reader, writer):
        held, kept, due, first = b"", None, asyncio.Queue(), True

        async def send():
            while True:
                at, frame = await due.get()
                await asyncio.sleep(max(0, at - time.monotonic()))
                writer.write(frame)

        sender = asyncio.create_task(send())
        try:
            while data := await reader.read(65536):
                held += data
                while (length := self.wire.frame_length(held)) is not None and len(held) >= length:
                    frame, held = held[:length], held[length:]
                    at = time.monotonic() + self.delay * self.rng.random()
                    if not first and self.rng.random() < self.loss:
                        self.lost += 1
                        continue
                    if not first and kept is None and self.rng.random() < self.reorder:
                        kept = frame
                        self.swapped += 1
                        continue
                    first = False
                    due.put_nowait((at, frame))
                    if kept is not None:
                        due.put_nowait((at, kept))
                        kept = None
        finally:
            sender.cancel()


async def completion(url, prompt, tokens, leave_after=None, priority=None):
    """The answer's text; None: it failed. leave_after: pieces of output, then the client is gone."""
    host, port = url.split("//")[1].split(":")
    body = {"model": "tiny", "prompt": prompt, "max_tokens": tokens, "stream": True, "temperature": 0}
    if priority is not None:
        body["priority"] = priority
    body = json.dumps(body).encode()
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return None
    text, pieces = "", 0
    try:
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
                     b"Content-Length: %d\r\n\r\n" % len(body) + body)
        while line := await reader.readline():
            if line.startswith(b"data: {"):
                choices = json.loads(line[6:]).get("choices")
                if choices is None:
                    return None
                text += choices[0]["text"] if choices else ""
                pieces += 1
                if leave_after is not None and pieces >= leave_after:
                    return text
            elif line.startswith(b"data: [DONE]"):
                return text
        return None
    except (OSError, ValueError):
        return None
    finally:
        writer.close()


class Load:
    def __init__(self, gateway, server, seed, rate, priority):
        self.gateway, self.server, self.rng, self.rate, self.priority = gateway, server, random.Random(seed), rate, priority
        self.sent, self.failed, self.left, self.foreign, self.turns = 0, 0, 0, 0, 0
        self.words = ["".join(self.rng.choice("bdfgklmnprst") + self.rng.choice("aeiou") for _ in range(3)) for _ in range(2000)]
        self.shared = [self.text(150) for _ in range(5)]

    def text(self, words):
        return " ".join(self.rng.choice(self.words) for _ in range(words))

    async def one(self):
        rng = self.rng
        prompt = (rng.choice(self.shared) + " " if rng.random() < 0.5 else "") + self.text(max(3, min(250, int(rng.lognormvariate(3.4, 0.9)))))
        url, leave = self.gateway, None
        kind = rng.random()
        if kind < 0.1:
            leave = rng.randint(1, 12)
            self.left += 1
        elif kind < 0.2:
            url = self.server
            self.foreign += 1
        priority = rng.randint(0, 3) if self.priority else None
        tokens = max(2, min(200, int(rng.lognormvariate(3.6, 0.8))))
        self.sent += 1
        answer = await completion(url, prompt, tokens, leave, priority)
        self.failed += answer is None
        if answer and leave is None and rng.random() < 0.3:
            self.sent += 1
            self.turns += 1
            more = await completion(url, prompt + answer + " " + self.text(10), tokens, None, priority)
            self.failed += more is None

    async def run(self, seconds):
        until, tasks = time.monotonic() + seconds, set()
        while time.monotonic() < until:
            burst = 1.8 if int(time.monotonic()) % 20 < 6 else 0.65
            await asyncio.sleep(self.rng.expovariate(self.rate * burst))
            task = asyncio.create_task(self.one())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks, timeout=120)


def preemptions(server):
    with urllib.request.urlopen(server.url + "/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("vllm:num_preemptions_total"):
                return float(line.split()[-1])
    return 0.0


async def measure(python, program, folder, minutes=1.0, rate=4.0, seed=1, policy="fcfs", pace="20,0.1,0.2,0.1", loss=0.0, reorder=0.0,
                  delay_ms=0.0, kill=False, flags=()):
    model = pathlib.Path(folder) / "model"
    subprocess.run([python, "-c", f"import sys; sys.path[:0] = [{str(HERE)!r}]; import live_server; live_server.make_model({str(model)!r})"],
                   check=True)
    port = free_port()
    gateway = Gateway(program, [f"http://127.0.0.1:{port}"])
    link = Link(gateway.sync_port, seed, loss, reorder, delay_ms / 1000)
    sync = f"tcp:127.0.0.1:{await link.start()}"
    started = []

    def start(n):
        started.append(live_server.Server(python, model, port, pathlib.Path(folder) / f"server{n}.log", sync, 0, pace,
                                          [*FLAGS, "--scheduling-policy", policy, *flags]))
        return started[-1]

    try:
        server = await asyncio.to_thread(start(0).wait_ready)
        load = Load(gateway.url, server.url, seed, rate, policy == "priority")
        restart = None
        await load.run(60 * minutes)
        preempted = preemptions(server)
        if kill:
            server.kill(signal.SIGKILL)
            began = time.monotonic()
            server = await asyncio.to_thread(start(1).wait_ready)
            while gateway.workers()[0]["state_level"] != "exact" and time.monotonic() < began + 300:
                await asyncio.sleep(0.05)
            restart = time.monotonic() - began
            await load.run(20 * minutes)
        await asyncio.sleep(2)  # the last snapshots
        worker = gateway.workers()[0]
        return {"level": worker["state_level"], **worker["sync"], "sent": load.sent, "failed": load.failed, "left": load.left,
                "foreign_sent": load.foreign, "turns": load.turns, "preemptions": preempted, "frames_lost": link.lost,
                "frames_swapped": link.swapped, "snapshots_made": link.asked, "restart_to_exact_s": restart}
    finally:
        gateway.close()
        for server in started:
            if server.process.poll() is None:
                server.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=os.environ.get("FORETOKEN", str(ROOT / "bazel-bin" / "integration" / "cli" / "foretoken")))
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--rate", type=float, default=4, help="requests a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--policy", choices=["fcfs", "priority"], default="fcfs")
    parser.add_argument("--pace", default="20,0.1,0.2,0.1", help="the law of the server's steps (live_server.py)")
    parser.add_argument("--loss", type=float, default=0)
    parser.add_argument("--reorder", type=float, default=0)
    parser.add_argument("--delay-ms", type=float, default=0)
    parser.add_argument("--kill", action="store_true", help="kill -9 at the end, and go on with the one started anew")
    o = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(measure(sys.executable, o.program, folder, o.minutes, o.rate, o.seed, o.policy, o.pace, o.loss, o.reorder,
                                             o.delay_ms, o.kill)), indent=1))


if __name__ == "__main__":
    import vllm_engine

    have = os.environ.get("FORETOKEN_VLLM") or str(vllm_engine.setup())
    if pathlib.Path(sys.executable) != pathlib.Path(have):
        os.execv(have, [have, __file__, *sys.argv[1:]])
    main()
