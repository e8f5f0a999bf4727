"""The log of the server: what `--verbose` shows, and what no log contains."""

from __future__ import annotations

import pytest
from server.running import running_server

SECRET = "a text that no log may contain"
BODY = {"messages": [{"role": "user", "content": SECRET}], "max_tokens": 1}


@pytest.mark.parametrize("verbose", [True, False])
def test_verbose_shows_requests_and_models(verbose: bool) -> None:
    with running_server("-m", "tiny-random-llama", "--n-ctx", "256", *(["-v"] if verbose else [])) as server:
        assert server.post("/v1/chat/completions", BODY).status_code == 200
        assert server.get("/health").status_code == server.get("/metrics").status_code == 200
        assert server.get(f"/none/{SECRET}").status_code == 404
        server.stop()
    log = "".join(server.errors)
    for words in ("INFO cyllama.server: loaded tiny-random-llama", "POST /v1/chat/completions 200 ", "GET other 404 "):
        assert (words in log) == verbose, log
    assert SECRET not in log and "/health" not in log and "/metrics" not in log
