"""Sends files of weights to servers that do not see this machine's disk: over HTTP, to those who know a secret."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from caopd.errors import ConfigError
from caopd.vllm_host.keeper import INDEX


@contextmanager
def sent(directory: Path, address: str) -> Iterator[str]:
    """Serve the files of a folder until the end of the ``with`` block, under a URL that nobody can guess.

    Args:
        directory: The folder, with files of weights alone.
        address: This machine, as the readers reach it: ``10.0.0.1``, or with a port; without one it is a free one.

    Raises:
        ConfigError: Nothing can be served under this address.
    """
    host, _, port = address.partition(":")
    secret = secrets.token_urlsafe(24)
    try:
        server = _Server((host, int(port or 0)), _Handler)
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"Expected `weights_address` of `servers` to be an address of this machine, with a free port or without "
            f"one, as in 10.0.0.1:8900, but got {address!r}: {error}."
        ) from error
    server.files = {f"/{secret}/{file.name}": file for file in directory.glob("*.safetensors")}
    server.index = f"/{secret}/{INDEX}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{host}:{server.server_port}/{secret}"
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    files: dict[str, Path]
    index: str


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        if self.path == self.server.index:
            names = json.dumps(sorted(file.name for file in self.server.files.values())).encode()
            self._begin(len(names))
            self.wfile.write(names)
        elif self.path in self.server.files:
            with self.server.files[self.path].open("rb") as file:
                self._begin(self.server.files[self.path].stat().st_size)
                shutil.copyfileobj(file, self.wfile, 2**20)
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _begin(self, size: int) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Print nothing: a URL holds the secret."""
