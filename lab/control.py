# SPDX-License-Identifier: GPL-2.0-or-later
"""The socket over which a keeper is asked: one line of JSON in, one out; see `lab.stayed.asked` for the other side."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab import stayed
from lab.errors import LabError

log = logging.getLogger(__name__)

REQUEST_S = 5.0  # from connecting to the end of the request

Request = dict[str, Any]


class Control:
    """Listens on a socket that only this user can reach, and answers each connection in a thread of its own.

    `answer` gets the request and the socket, and returns what is told; of what it tells itself, over the
    socket, it returns None. A LabError is told to whoever asked.
    """

    def __init__(self, path: Path, answer: Callable[[Request, socket.socket], Any]) -> None:
        self._path = path
        self._answer = answer
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(path))
        path.chmod(0o600)
        self._server.listen(16)
        threading.Thread(target=self._accept, name=f"control-{path.name}", daemon=True).start()

    def close(self) -> None:
        """Take no more requests; those under way go on."""
        self._path.unlink(missing_ok=True)
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(client,), name="control", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                client.settimeout(REQUEST_S)
                request = json.loads(stayed.read_line(client))
                client.settimeout(None)
            except (OSError, ValueError):  # somebody only looked whether we live
                return
            try:
                said = self._answer(request if isinstance(request, dict) else {}, client)
            except LabError as e:
                said = {"error": e.message, "hint": e.hint}
            except Exception as e:
                log.exception("a request failed: %s", request)
                said = {"error": f"internal error: {type(e).__name__}: {e}"}
            if said is not None:
                tell(client, said)


def tell(client: socket.socket, said: Any) -> None:
    """Answer; whoever asked may have gone."""
    with suppress(OSError):
        client.sendall(json.dumps(said).encode() + b"\n")
