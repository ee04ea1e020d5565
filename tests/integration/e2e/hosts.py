"""A cluster whose nodes are hosts of their own: every node runs in a network namespace, and each pair of nodes has a link (veth) of its own
that can be taken down. Needs `ip`, and the right to make namespaces: of the machine, or (begin) in a user namespace."""
import os
import shutil
import subprocess
import sys
import time

from tests.integration.e2e.cluster import Cluster

PORT = 7400  # every host has all ports to itself
_IN_USER_NAMESPACE = "FORETOKEN_E2E_USER_NAMESPACE"


def _may_make_namespaces():
    return subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode == 0


def begin():
    """Call first in a test's program: without the right to make namespaces it is started anew as root of a user namespace, where it has it.
    Returns why there can be none, or None."""
    if shutil.which("ip") is None:
        return "no `ip` (Debian package iproute2)"
    if _may_make_namespaces():
        return None
    wrapped = ["unshare", "--user", "--map-root-user", "--net"]
    if _IN_USER_NAMESPACE not in os.environ and subprocess.run([*wrapped, "unshare", "--net", "true"], capture_output=True).returncode == 0:
        os.environ[_IN_USER_NAMESPACE] = "1"
        os.execvp("unshare", [*wrapped, sys.executable, *sys.argv])
    return "network namespaces are not permitted here"


class Hosts(Cluster):
    """As Cluster; partition() and heal() take links down and up."""

    def __init__(self, nodes, instances, proxied=(), **options):
        """`proxied`: (from, to): what `from` dials `to` by goes through a Proxy on the host of `from`; `from` comes later than `to`."""
        self.proxied = {pair: None for pair in proxied}  # its process
        self.index = {name: k for k, (name, _) in enumerate(nodes)}
        # A namespace lives as long as a process in it.
        self.holders = {name: subprocess.Popen(["unshare", "--net", "sleep", "infinity"]) for name in self.index}
        try:
            for holder in self.holders.values():
                self._await_namespace(holder.pid)
            self._connect()
            super().__init__(nodes, instances, **options)
        except BaseException:
            self._end_holders()
            raise
        self.ports = {name: PORT for name in self.index}
        self.paths = {name: self.write(f"{name}.yaml", {}, name) for name in self.index}
        for source, to in self.proxied:
            self._begin_proxy(source, to)
        self.path = self.paths[nodes[0][0]]

    def _begin_proxy(self, source, to):
        """The node of `source` finds `to` at a port of its own host."""
        listen = PORT + 1 + self.index[to]
        process = subprocess.Popen([*self.prefix(source), sys.executable, "-m", "tests.integration.e2e.proxy", str(listen), self.host(to), str(PORT)],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.proxied[source, to] = process
        process.stdout.readline()
        with open(self.paths[source]) as file:
            text = file.read()
        with open(self.paths[source], "w") as file:
            file.write(text.replace(f"{self.host(to)}:{PORT}", f"127.0.0.1:{listen}"))

    def tell_proxy(self, source, to, *words):
        """`stall`, `flow`, or `delay` with seconds."""
        process = self.proxied[source, to]
        process.stdin.write(" ".join(str(w) for w in words) + "\n")
        process.stdin.flush()
        process.stdout.readline()

    def host(self, node):
        return f"10.77.0.{self.index[node] + 1}"

    def prefix(self, node):
        return ["nsenter", f"--net=/proc/{self.holders[node].pid}/ns/net"]

    @staticmethod
    def _await_namespace(pid):
        """unshare has made it when it differs from ours."""
        ours = os.readlink("/proc/self/ns/net")
        until = time.monotonic() + 10
        while os.readlink(f"/proc/{pid}/ns/net") == ours:
            if time.monotonic() > until:
                raise RuntimeError("no network namespace within 10 s")
            time.sleep(0.002)

    def ip(self, node, lines):
        done = subprocess.run([*self.prefix(node), "ip", "-batch", "-"], input="\n".join(lines) + "\n", text=True, capture_output=True)
        if done.returncode != 0:
            raise RuntimeError(f"ip in {node}: {done.stderr}")

    def _link(self, node, other):
        return f"to-{self.index[other]}"

    def _route(self, node, other):
        return [f"route replace {self.host(other)}/32 dev {self._link(node, other)} src {self.host(node)}"]

    def _connect(self):
        names = list(self.index)
        for node in names:
            lines = ["link set lo up", f"addr add {self.host(node)}/32 dev lo"]
            for other in names[self.index[node] + 1:]:
                pid = self.holders[other].pid
                lines.append(f"link add {self._link(node, other)} type veth peer name {self._link(other, node)} netns {pid}")
            self.ip(node, lines)
        for node in names:
            lines = []
            for other in names:
                if other != node:
                    lines += [f"link set {self._link(node, other)} up"] + self._route(node, other)
            self.ip(node, lines)

    def partition(self, some, others):
        """No frame passes between `some` and `others` any more; no side is told."""
        for node in some:
            self.ip(node, [f"link set {self._link(node, other)} down" for other in others])

    def heal(self, some, others):
        for node in some:
            for other in others:  # a route goes down with its link
                self.ip(node, [f"link set {self._link(node, other)} up"] + self._route(node, other))

    def _end_holders(self):
        for proxy in filter(None, self.proxied.values()):
            proxy.kill()
            proxy.wait()
            proxy.stdin.close()
            proxy.stdout.close()
        for holder in self.holders.values():
            holder.kill()
            holder.wait()

    def close(self):
        super().close()
        self._end_holders()
