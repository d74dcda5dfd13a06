"""A way to the server on which connections break: a proxy that lets some bytes through and then hangs up."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Breaking:
    """``up``, ``down``: bytes that each next connection may carry to and from the server; then all it wants."""

    def __init__(self, port: int, up: tuple[int, ...], down: tuple[int, ...]) -> None:
        self._port = port
        self._limits = {"up": list(up), "down": list(down)}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.broken = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._begin(self._carry, client)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)
        self._listener.close()

    def _begin(self, work, *arguments) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _carry(self, client: socket.socket) -> None:
        limits = [given.pop(0) if given else None for given in self._limits.values()]
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            ways = ((client, server, limits[0]), (server, client, limits[1]))
            for thread in [self._begin(self._pump, *way) for way in ways]:
                thread.join()

    def _pump(self, source: socket.socket, target: socket.socket, most: int | None) -> None:
        carried = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if most is not None and carried + len(data) > most:
                    target.sendall(data[: most - carried])
                    self.broken += 1
                    break
                target.sendall(data)
                carried += len(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def breaking(port: int, *, up: tuple[int, ...] = (), down: tuple[int, ...] = ()) -> Iterator[Breaking]:
    way = Breaking(port, up, down)
    thread = threading.Thread(target=way.serve, daemon=True)
    thread.start()
    try:
        yield way
    finally:
        way.close()
        thread.join(20)
