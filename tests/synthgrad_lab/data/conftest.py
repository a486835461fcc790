"""A real server to download from, and the messages of the loader."""

import functools
import http.server
import threading

import pytest

from tests.helpers.small_files import write


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def messages(caplog, capfd):
    """A function that returns the messages logged since its last call, and checks that nothing else is printed."""
    caplog.set_level("INFO", "synthgrad_lab")

    def read():
        logged, (out, err) = caplog.messages.copy(), capfd.readouterr()
        caplog.clear()
        assert out == ""
        assert set(err.splitlines()) <= set(logged)
        return logged

    return read


@pytest.fixture
def serve(tmp_path):
    """A function that writes files to a folder and returns the URL where a server on 127.0.0.1 serves it."""

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
