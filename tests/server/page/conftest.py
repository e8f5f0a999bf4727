"""The page in Chromium, with a server of all engines."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, expect
from server.conftest import JFK, KEY
from server.page.browsing import chromium
from server.page.driving import TIMEOUT
from server.running import Server, running_server

CONFIG = f"""
api_keys = ["{KEY}"]

[models.smol]
model = "smollm2-135m-instruct"
n_ctx = 4096
n_parallel = 2
preload = true
options = {{ "cache-ram" = 8 }}

[models.tiny]
model = "tiny-random-llama"
n_ctx = 4096
n_parallel = 2
options = {{ "cache-ram" = 8 }}

[models.seeing]
model = "smollm2-135m-instruct"
mmproj = "vision-dinov2s"
n_ctx = 2048
n_parallel = 1
options = {{ "cache-ram" = 8 }}

[models.speech]
kind = "whisper"
model = "tiny.en"

[models.shapes]
kind = "sd"
model = "tiny-shapes"
"""
MICROPHONE = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
              f"--use-file-for-fake-audio-capture={JFK}"]  # fmt: skip

SIZES = {"phone": (390, 780), "desktop": (1280, 800)}
VARIANTS = [f"{size}-{scheme}" for size in SIZES for scheme in ("light", "dark")]
Scheme = Literal["light", "dark"]
Opener = Callable[..., Page]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server with all engines and an API key."""
    file = tmp_path_factory.mktemp("page") / "models.toml"
    file.write_text(CONFIG)
    # texts are compared, so the number of threads must not change
    with running_server("--config", file, environment={"GGML_TEAM_FIXED": "1"}) as found:
        yield found
        assert found.process.poll() is None, "".join(found.errors)
        assert not [line for line in found.errors if "Traceback" in line], "".join(found.errors)


@pytest.fixture(scope="module")  # an event loop runs in this thread while it is open, which disturbs other tests
def browser() -> Iterator[Browser]:
    with chromium(*MICROPHONE) as found:
        yield found


@pytest.fixture
def opened(browser: Browser, site: Server) -> Iterator[Opener]:
    """Open the page; check at the end that no script failed and no request went to another host."""
    expect.set_options(timeout=TIMEOUT)
    urls: list[str] = []
    failures: list[str] = []
    contexts = []

    def open_page(width: int = 1280, height: int = 800, scheme: Scheme = "light") -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            permissions=["microphone", "clipboard-read", "clipboard-write"],
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT)
        page.on("request", lambda request: urls.append(request.url))
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on(
            "console", lambda message: failures.append(message.text) if "Content Security" in message.text else None
        )
        page.add_init_script(f"sessionStorage.setItem('key', '{KEY}')")  # test_requires_a_valid_key fills in the form
        page.goto(site.url)
        expect(page.locator("#model option").first).to_be_attached()
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            page.unroute_all(behavior="ignoreErrors")
        context.close()
    assert not failures
    assert not [url for url in urls if not url.startswith((site.url, "data:", f"blob:{site.url}"))]


@pytest.fixture
def page(opened: Opener, variant: str) -> Page:
    """Open the page in a variant."""
    size, scheme = variant.split("-")
    return opened(*SIZES[size], scheme=scheme)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let each test use one of the variants, which its name decides; ``--all-variants``: each of them."""
    if "variant" not in metafunc.fixturenames:
        return
    chosen = [VARIANTS[zlib.crc32(metafunc.function.__name__.encode()) % len(VARIANTS)]]
    metafunc.parametrize("variant", VARIANTS if metafunc.config.getoption("--all-variants") else chosen)


@pytest.fixture
def screenshots(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the folder for screenshots; ``make screenshots`` writes them to the documentation."""
    return Path(request.config.getoption("--screenshots") or tmp_path)
