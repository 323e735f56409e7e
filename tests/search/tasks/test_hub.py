"""Access to the hub, against a server that answers as the hub does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import huggingface_hub
import pytest

from pruners.errors import DataError, ModelError
from search.tasks.hub import check_access

ANSWERS: dict[str, tuple[int, str, dict[str, object]]] = {
    "/api/datasets/open/rows": (200, "", {"id": "open/rows", "sha": "abc", "gated": False}),
    "/api/datasets/gated/rows": (200, "", {"id": "gated/rows", "sha": "abc", "gated": "manual"}),
    "/api/datasets/gated/rows/auth-check": (403, "GatedRepo", {}),
    "/api/models/gated/model": (401, "GatedRepo", {}),
    "/api/models/forbidden/model": (403, "", {}),
    "/api/models/hidden/model": (401, "RepoNotFound", {}),
    "/api/models/broken/model": (500, "", {}),
}


class Hub(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, code, body = ANSWERS.get(self.path.partition("?")[0], (404, "RepoNotFound", {}))
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def _hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield
    server.shutdown()


@pytest.mark.usefixtures("_hub")
def test_an_open_data_set_gives_its_commit() -> None:
    assert check_access("open/rows", "dataset", "") == "abc"


@pytest.mark.usefixtures("_hub")
@pytest.mark.parametrize(
    ("name", "kind", "error", "message"),
    [
        ("gated/rows", "dataset", DataError, "accept its conditions at .*datasets/gated/rows"),
        ("gated/model", "model", ModelError, "accept its conditions at .*co/gated/model"),
        ("forbidden/model", "model", ModelError, "log in with `hf auth login`"),
        ("hidden/model", "model", ModelError, "only for those who are logged in"),
        ("missing/rows", "dataset", DataError, "is not on the hub.* Use a folder"),
        ("broken/model", "model", ModelError, "try again later"),
    ],
)
def test_what_is_refused_is_named_with_what_to_do(
    name: str, kind: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_access(name, kind, "Use a folder")  # type: ignore[arg-type]


def test_without_network_the_message_comes_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    started = time.monotonic()
    with pytest.raises(DataError, match=r"cannot be reached .*HF_HUB_OFFLINE=1.*Use a folder"):
        check_access("open/rows", "dataset", "Use a folder")
    # Not a measure of speed: loading would retry for half a minute.
    assert time.monotonic() - started < 10


def test_offline_mode_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert check_access("open/rows", "dataset", "") == ""
