#!/usr/bin/env python3
"""A TCP proxy as a process of its own, so that it can stand on a host (network namespace) of a test: passes the bytes of LISTEN_PORT here on to
HOST:PORT. Lines on standard input: `stall`, `flow`, `delay SECONDS`; its end ends the proxy."""
import sys

from tests.integration.e2e.cluster import Proxy


def main():
    listen, host, port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    proxy = Proxy(port, host, listen)
    print("ready", flush=True)
    for line in sys.stdin:
        what, *value = line.split()
        if what == "delay":
            proxy.delay = float(value[0])
        elif what == "stall":
            proxy.stalled.set()
        else:
            proxy.stalled.clear()
        print("done", flush=True)
    proxy.close()


if __name__ == "__main__":
    main()
