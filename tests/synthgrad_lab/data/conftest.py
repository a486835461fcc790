"""A real server for what is fetched."""

import functools
import http.server
import threading

import pytest

from tests.helpers.small_files import write


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def serve(tmp_path):
    """A function that makes a folder from files and returns the URL where a server on 127.0.0.1 serves it."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            served.append(self.path)

    served, servers = [], []

    def start(files):
        folder = write(tmp_path / f"served{len(servers)}", files)
        handler = functools.partial(Handler, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/"

    start.served = served
    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()
