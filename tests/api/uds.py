"""`requests` over a Unix socket, for schemathesis."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter

from tests.api.conftest import connected


class _Connection(urllib3.connection.HTTPConnection):
    path: Path

    def _new_conn(self) -> socket.socket:
        return connected(self.path)


class Adapter(HTTPAdapter):
    """Sends everything to one socket, whatever host the address names."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        connection = type("Connection", (_Connection,), {"path": path})
        self._pool = urllib3.HTTPConnectionPool("localhost")
        self._pool.ConnectionCls = connection

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        return self._pool


def session(path: Path) -> requests.Session:
    found = requests.Session()
    found.trust_env = False
    found.mount("http://", Adapter(path))
    return found
