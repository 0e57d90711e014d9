"""/healthz, /readyz and /metrics of a service."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from stream.errors import UsageError


class StatusServer:
    """A small HTTP server in daemon threads.

    Parameters
    ----------
    listen
        `host:port`; port 0 takes a free one.
    registry
        What /metrics shows.
    unready
        Why the service is not ready, or None when it is: assigned, restored and caught up.

    Raises
    ------
    UsageError
        When `listen` is not an address that can be listened on.
    """

    def __init__(self, listen: str, registry: CollectorRegistry, unready: Callable[[], str | None]) -> None:
        host, colon, port = listen.rpartition(":")
        if not colon or not port.isdigit():
            raise UsageError(
                f"http.listen must be HOST:PORT; got {listen!r}. Set --http-listen 127.0.0.1:0 for a free port."
            )
        host = host.strip("[]")

        class Handler(BaseHTTPRequestHandler):
            server_version = "tidegate"
            sys_version = ""

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/healthz":
                    self._answer(HTTPStatus.OK, b"ok\n")
                elif path == "/readyz":
                    reason = unready()
                    self._answer(
                        HTTPStatus.OK if reason is None else HTTPStatus.SERVICE_UNAVAILABLE,
                        b"ready\n" if reason is None else f"{reason}\n".encode(),
                    )
                elif path == "/metrics":
                    self._answer(HTTPStatus.OK, generate_latest(registry), CONTENT_TYPE_LATEST)
                else:
                    self._answer(HTTPStatus.NOT_FOUND, b"known paths: /healthz /readyz /metrics\n")

            def _answer(self, status: HTTPStatus, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Probes every few seconds are not worth a line each."""

        try:
            self._server = ThreadingHTTPServer((host, int(port)), Handler)
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"http.listen {listen!r} cannot be listened on: {error}. Set --http-listen 127.0.0.1:0 for a free port."
            ) from error
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """`http://host:port`, with the port that was taken."""
        host, port = self._server.server_address[:2]
        text = host if isinstance(host, str) else host.decode()
        return f"http://[{text}]:{port}" if ":" in text else f"http://{text}:{port}"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
