"""Ports for servers of tests."""

import random
import socket

# Below those that a system gives to connections, of which one could take the port meanwhile.
PORTS = range(20_000, 32_000)


def free_port():
    """Return a port of this machine at which nobody listens."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
