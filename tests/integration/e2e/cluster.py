"""A cluster of real processes on loopback for tests: writes a topology, starts `foretoken serve --node` per node, watches what they say, and
does to them what networks and machines do: kill, stop, continue, and (Proxy) stall what flows between them."""
import json
import os
import re
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time

PROGRAM = os.path.abspath(os.environ.get("FORETOKEN_PROGRAM", "integration/cli/foretoken"))


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


TOPOLOGY = """version: 1
slo: {{ ttft: 1s, tpot: 50ms }}
engines:
  e:
    {engine}
pools:
  - name: default
    models: [m]
    instances:
      - {{ id: i, count: {instances}, engine: e }}
scheduler: {{ policy: min_e2e, decision_deadline: {deadline} }}
sync: {{ heartbeat: {heartbeat}, stale_after: {stale}, dead_after: {dead} }}
nodes:
{nodes}
{tls}
{gateway}
"""


ENGINE = """kind: emulated
    behaviour: vllm-0.32
    step_law: { step: 5850us, prefill_token: 19.5us, decode_seq: 13.8us, kv_token: 42ns }
    kv_blocks: 29186"""


class Process:
    """A node's process and the lines of its log with the time at which each was read."""

    def __init__(self, name, arguments):
        self.name = name
        self.lines = []
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        for line in self.process.stderr:
            self.lines.append((time.monotonic(), line.rstrip("\n")))

    def wait_line(self, pattern, after=0.0, timeout=20.0):
        """The time of the first line after `after` that the pattern is found in."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            for at, line in list(self.lines):
                if at >= after and re.search(pattern, line):
                    return at
            time.sleep(0.002)
        raise AssertionError(f"{self.name} did not say /{pattern}/ within {timeout} s; it said:\n" + self.log())

    def log(self):
        return "\n".join(line for _, line in self.lines[-40:])

    def signal(self, what):
        self.process.send_signal(what)

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()
        self.thread.join(5)
        self.process.stdout.close()
        self.process.stderr.close()


class Cluster:
    """nodes: [(name, [hosts])]. The first one listed must host the scheduler; it can be given a load."""

    def __init__(self, nodes, instances, heartbeat="50ms", stale="150ms", dead="400ms", deadline="50ms", tls=None, via=None,
                 engine=ENGINE, gateway=None):
        self.folder = tempfile.TemporaryDirectory(prefix="foretoken-e2e-")
        self.ports = dict(zip([n for n, _ in nodes], free_ports(len(nodes))))
        self.nodes = nodes
        self.options = {"engine": engine, "gateway": f'gateway: {{ listen: "127.0.0.1:{gateway}" }}' if gateway else "",
                        "instances": instances, "heartbeat": heartbeat, "stale": stale, "dead": dead, "deadline": deadline}
        self.tls = tls
        self.processes = {}  # by name, the latest
        self.all = []
        # via: {(from, to): a function from the port of `to` to the one that `from` dials}.
        self.paths = {}
        for node, _ in nodes:
            others = {to: port_of(self.ports[to]) for (source, to), port_of in (via or {}).items() if source == node}
            self.paths[node] = self.write(f"{node}.yaml", others, node)
        self.path = self.paths[nodes[0][0]] if not via else self.write("status.yaml", {}, nodes[0][0])

    def host(self, node):
        """The address that a node listens on."""
        return "127.0.0.1"

    def prefix(self, node):
        """What stands before every command of a node."""
        return []

    def write(self, name, other_ports, node):
        ports = {**self.ports, **other_ports}
        lines = "\n".join(f'  - {{ name: {n}, listen: "{self.host(n)}:{ports[n]}", hosts: [{", ".join(repr(h) for h in hosts)}] }}'
                          for n, hosts in self.nodes).replace("'", '"')
        tls = ""
        if self.tls:
            tls = f"tls: {{ certificate: {self.tls}/{node}.pem, key: {self.tls}/{node}.key, ca: {self.tls}/ca.pem }}"
        path = os.path.join(self.folder.name, name)
        with open(path, "w") as out:
            out.write(TOPOLOGY.format(nodes=lines, tls=tls, **self.options))
        return path

    def start(self, name, load=None, more=()):
        arguments = [*self.prefix(name), PROGRAM, "serve", "--topology", self.paths[name], "--node", name, "--json", *more]
        if load:
            arguments += ["--load", load]
        self.processes[name] = Process(name, arguments)
        self.all.append(self.processes[name])
        return self.processes[name]

    def start_all(self, load=None, more=()):
        for name, _ in self.nodes[1:]:
            self.start(name)
        return self.start(self.nodes[0][0], load, more)

    def status(self, name=None):
        """What `foretoken status` says: of one node, or of all by name."""
        done = subprocess.run([*self.prefix(name or self.nodes[0][0]), PROGRAM, "status", "--topology", self.path, "--json"],
                              capture_output=True, text=True, timeout=60)
        nodes = {n["node"]: n for n in json.loads(done.stdout)["nodes"]}
        return nodes[name] if name else nodes

    def wait_status(self, name, condition, timeout=20.0):
        until = time.monotonic() + timeout
        while True:
            status = self.status(name)
            if "error" not in status and condition(status):
                return status
            if time.monotonic() > until:
                raise AssertionError(f"{name} did not come to the state within {timeout} s: {status}\n" + self.processes[name].log())

    def result(self, name, timeout=120):
        """The report of a node that was given a load, when it has ended."""
        process = self.processes[name].process
        out, _ = process.stdout.read(), process.wait(timeout)
        return json.loads(out)

    def close(self):
        for p in self.all:
            p.end()
        self.folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Proxy:
    """Passes the TCP bytes of 127.0.0.1:listen on to host:port, unless it is told to stall (bytes wait, connections stay), to delay, or to cut."""

    def __init__(self, port, host="127.0.0.1", listen=0):
        self.target = (host, port)
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", listen))
        self.listener.listen(16)
        self.port = self.listener.getsockname()[1]
        self.stalled = threading.Event()
        self.delay = 0.0
        self.closing = False
        self.pairs = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while not self.closing:
            try:
                near, _ = self.listener.accept()
                far = socket.create_connection(self.target, timeout=5)
            except OSError:
                continue
            for s in (near, far):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.pairs.append((near, far))
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(a, b), daemon=True).start()

    def _pump(self, source, target):
        try:
            while not self.closing:
                if self.stalled.is_set():
                    time.sleep(0.005)
                    continue
                if not select.select([source], [], [], 0.1)[0]:
                    continue
                data = source.recv(65536)
                while self.stalled.is_set() and not self.closing:
                    time.sleep(0.005)
                if self.delay:
                    time.sleep(self.delay)
                if not data:
                    break
                target.sendall(data)
        except OSError:
            pass
        for s in (source, target):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.closing = True
        self.listener.close()
        for pair in self.pairs:
            for s in pair:
                s.close()
