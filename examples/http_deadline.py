"""http.client with a total deadline, over a server that sends a byte now and then.

The timeout of a socket is for each call, and each of this server's bytes starts it anew: the request could
last for ever. `fail_after` is for the whole of it. http.client itself is unchanged; it is given a socket
whose calls a scope can end.

    python examples/http_deadline.py
"""

from __future__ import annotations

import http.client
import socket
import sys
import threading

import iocancel

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"


def fetch(host: str, port: int, seconds: float) -> bytes:
    """Get a page.

    Args:
        host, port: the server.
        seconds: for all of it: to connect, to ask, and to read all of the answer.

    Raises:
        TimeoutError: it was not done in time.
    """
    with iocancel.fail_after(seconds):
        connection = http.client.HTTPConnection(host, port)
        connection.sock = iocancel.create_connection((host, port), timeout=5)
        try:
            connection.request("GET", "/")
            with connection.getresponse() as response:
                page = response.read()
        finally:
            connection.close()
    return page


def trickle(server: socket.socket, stop: threading.Event, gone: threading.Event) -> None:
    """A server that is always about to say something.

    Args:
        server: a listening socket.
        stop: ends it.
        gone: is set when the client has closed the connection.
    """
    connection, _ = iocancel.accept(server, timeout=5)
    with connection:
        connection.recv(4096)
        connection.sendall(HEAD)
        try:
            while not stop.wait(0.01):
                connection.sendall(b".")
        except OSError:
            gone.set()


def main() -> int:
    """Run it and show what happened."""
    stop, gone = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        serving = threading.Thread(target=trickle, args=(server, stop, gone))
        serving.start()
        try:
            host, port = server.getsockname()
            fetch(host, port, 1.0)
        except TimeoutError as error:
            print(f"the client: {error}")
            if gone.wait(5):  # a connection that was closed is reset, and the server finds out
                print("the server: the client has gone")
        finally:
            stop.set()
            serving.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
