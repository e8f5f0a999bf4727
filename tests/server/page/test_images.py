"""Images on the page: settings, seeds, start image, mask, gallery, metadata."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from server.conftest import png
from server.page.driving import drop, open_tab

from cyllama.sd import parse_infotext, read_parameters

PROMPT = "a large red circle on white"
GALLERY = "#gallery button"


@pytest.fixture
def images(page: Page) -> Page:
    open_tab(page, "Images")
    return page


def fill(page: Page, **values: str) -> None:
    for name, value in values.items():
        page.locator(f"#image-{name}").fill(value)


def generate(page: Page, **values: str) -> None:
    """Generate with these fields, a small image by default, and wait for the end."""
    fill(page, **({"text": PROMPT, "seed": "1", "width": "64", "height": "64", "steps": "2"} | values))
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#image-generate")).to_be_disabled()
    expect(page.locator("#image-generate")).to_be_enabled()


def content(page: Page) -> bytes:
    """Return the file that is shown."""
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Save").click()
    return waiting.value.path().read_bytes()


def pixels(data: bytes) -> npt.NDArray[np.int_]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def redness(area: npt.NDArray[np.int_]) -> float:
    return float(((area[..., 0] > 150) & (area[..., 1] < 90) & (area[..., 2] < 90)).mean())


def sent(page: Page) -> list[dict[str, Any]]:
    """Collect the JSON bodies of requests for images; seeds are larger than JavaScript's numbers."""
    found: list[dict[str, Any]] = []
    page.on(
        "request", lambda r: found.append(json.loads(r.post_data or "")) if r.url.endswith("/generations") else None
    )
    return found


def test_generates_an_image_with_previews(images: Page) -> None:
    alts = images.evaluate_handle(
        """() => {
            const alts = [], image = document.getElementById("image-result");
            new MutationObserver(() => alts.push(image.alt)).observe(image, {attributes: true});
            return alts;
        }"""
    )
    generate(images, steps="16", width="128", height="128")
    assert any(alt.startswith("Preview of") for alt in alts.json_value())
    found = pixels(content(images))
    assert 0.1 < redness(found) < 0.8 and found[0, 0].min() > 200  # the corner is white
    expect(images.locator("#image-seed-used")).to_have_text("Seed 1")
    expect(images.get_by_role("link", name="Save")).to_have_attribute("download", "image-1.png")


def test_sends_size_steps_negative_prompt_and_count(images: Page) -> None:
    bodies = sent(images)
    generate(images, width="96", height="64", steps="3", negative="blue", count="2", seed="4611686018427387902")
    assert [body["seed"] for body in bodies] == [4611686018427387902, 4611686018427387903]
    wanted = {"prompt": PROMPT, "negative_prompt": "blue", "size": "96x64", "steps": 3, "model": "shapes"}
    assert all({name: body[name] for name in wanted} == wanted for body in bodies)
    expect(images.locator(GALLERY)).to_have_count(2)
    assert pixels(content(images)).shape == (64, 96, 3)
    expect(images.locator("#image-seed-used")).to_have_text("Seed 4611686018427387903")
    expect(images.locator("#image-details")).to_contain_text("96\N{MULTIPLICATION SIGN}64")


def test_a_shown_seed_gives_the_same_image(images: Page) -> None:
    generate(images, seed="")
    first = pixels(content(images))
    seed = images.locator("#image-seed-used").inner_text().removeprefix("Seed ")
    generate(images, seed=seed)
    assert np.array_equal(pixels(content(images)), first)


@pytest.mark.parametrize(("field", "value"), [("seed", str(2**63)), ("width", "64")])
def test_rejects_bad_settings(images: Page, field: str, value: str) -> None:
    """A seed of more than 63 bits, a width without a height."""
    fill(images, text=PROMPT, **{field: value})
    images.get_by_role("button", name="Generate").click()
    expect(images.get_by_role("alert")).to_contain_text(re.compile(field, re.IGNORECASE))


def test_stops_after_the_first_image_and_keeps_it(images: Page) -> None:
    """Closing the stream stops this page's job, and no other."""
    urls: list[str] = []
    images.on("request", lambda request: urls.append(request.url))
    fill(images, text=PROMPT, count="8", steps="30", seed="1", width="64", height="64")
    images.get_by_role("button", name="Generate").click()
    expect(images.get_by_role("progressbar", name="Progress of the images")).to_be_visible()
    expect(images.locator("#image-status")).to_contain_text("Image 2 of 8")
    images.locator("#image-stop").click()
    expect(images.locator("#image-status")).to_have_text("Stopped.")
    expect(images.locator("#image-generate")).to_be_enabled()
    assert 1 <= images.locator(GALLERY).count() < 8  # the second may have been finished before the click
    assert not [url for url in urls if "sdapi" in url]  # these routes are about any job


def test_starts_from_an_image_with_a_painted_mask(images: Page) -> None:
    """Only the painted half changes."""
    drop(images, "#panel-image", ("blue.png", "image/png", png("blue", (128, 128))))
    expect(images.locator("#image-start-name")).to_contain_text("blue.png")
    images.get_by_label("Brush", exact=True).fill("40")
    box = images.get_by_label("Mask of what is generated anew").bounding_box()
    assert box is not None
    x, y, width, height = box["x"], box["y"], box["width"], box["height"]
    images.mouse.move(x + width * 0.9, y + 2)
    images.mouse.down()
    images.mouse.move(x + width * 0.9, y + height - 2, steps=4)
    images.mouse.up()
    generate(images, steps="4", strength="1", width="128", height="128")
    found = pixels(content(images))
    assert found.shape[:2] == (128, 128)
    assert np.abs(found[:, :64] - (0, 0, 255)).max() < 12
    assert np.abs(found[:, 112:] - (0, 0, 255)).mean() > 20


def test_paints_a_mask_with_the_keyboard(images: Page) -> None:
    drop(images, "#panel-image", ("blue.png", "image/png", png("blue", (128, 128))))
    painted = """() => { const canvas = document.getElementById("image-mask");
        return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.filter((v, i) => i % 4 === 3 && v).length; }"""
    mask = images.get_by_label("Mask of what is generated anew")
    mask.focus()
    mask.press("ArrowRight")
    assert images.evaluate(painted) == 0
    mask.press(" ")
    dot = images.evaluate(painted)
    for _ in range(10):
        mask.press("Shift+ArrowRight")
    assert images.evaluate(painted) > dot > 100
    images.get_by_role("button", name="Erase").press("Enter")
    mask.press(" ")
    assert images.evaluate(painted) < 128 * 128
    images.get_by_role("button", name="Clear the mask").press("Enter")
    assert images.evaluate(painted) == 0
    images.get_by_role("button", name="Remove the image").press("Enter")
    expect(mask).to_be_hidden()


def test_changes_an_image_as_much_as_the_strength_says(images: Page) -> None:
    images.locator("#image-file").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": png("blue")})
    expect(images.get_by_label("Strength")).to_be_visible()
    generate(images, strength="0.2", steps="5", width="128", height="128")
    near = np.abs(pixels(content(images)) - (0, 0, 255)).mean()
    generate(images, strength="1", steps="5", width="128", height="128")
    assert near < np.abs(pixels(content(images)) - (0, 0, 255)).mean()


def test_keeps_images_with_their_settings(images: Page) -> None:
    generate(images, steps="3", negative="blue", seed="5")
    generate(images, seed="6", negative="")
    images.reload()
    open_tab(images, "Images")
    expect(images.locator(GALLERY)).to_have_count(2)
    images.locator(GALLERY).nth(1).click()
    expect(images.locator("#image-seed-used")).to_have_text("Seed 5")
    images.get_by_role("button", name="Use its settings").click()
    for field, value in {"text": PROMPT, "negative": "blue", "steps": "3", "seed": "5"}.items():
        expect(images.locator(f"#image-{field}")).to_have_value(value)
    images.get_by_role("button", name="Start from it").click()
    expect(images.locator("#image-start-name")).to_contain_text("image 5")
    images.get_by_role("button", name="Delete", exact=True).click()
    expect(images.locator(GALLERY)).to_have_count(1)
    images.reload()
    open_tab(images, "Images")
    expect(images.locator(GALLERY)).to_have_count(1)


def test_the_gallery_is_bounded(images: Page) -> None:
    """The oldest images are removed, from the page and from the browser's storage."""
    kept = """async () => {
        const {addImage} = await import("/gallery.js"), {getAll} = await import("/store.js");
        for (let i = 0; i < 64; i += 1) await addImage(new Blob([`${i}`]), {prompt: `image ${i}`, seed: `${i}`, model: "m"});
        return (await getAll("images")).map(({parameters}) => Number(parameters.seed)).sort((a, b) => a - b);
    }"""
    assert images.evaluate(kept) == list(range(4, 64))
    expect(images.locator(GALLERY)).to_have_count(60)


@pytest.mark.parametrize("prompt", [PROMPT, "ein Kreis, größer, 円"])
def test_reads_the_settings_of_a_dropped_image(images: Page, tmp_path: Path, prompt: str) -> None:
    generate(images, text=prompt, negative="blue: dark", steps="3", width="96", height="64", seed="4611686018427387903")
    data = content(images)
    file = tmp_path / "image.png"
    file.write_bytes(data)
    parameters = parse_infotext(read_parameters(file) or "")  # other programs read them too
    assert parameters["prompt"] == prompt and parameters["seed"] == 4611686018427387903
    fields = {"text": "", "negative": "", "steps": "", "width": "", "height": "", "seed": ""}
    fill(images, **fields)
    drop(images, "#panel-image", ("generated.png", "image/png", data))
    expect(images.locator("#image-status")).to_contain_text("generated.png")
    expected = {
        "text": prompt,
        "negative": "blue: dark",
        "steps": "3",
        "width": "96",
        "height": "64",
        "seed": "4611686018427387903",
    }
    for name, value in expected.items():
        expect(images.locator(f"#image-{name}")).to_have_value(value)
    images.get_by_role("button", name="Start from this image").click()
    expect(images.locator("#image-start-name")).to_contain_text("generated.png")


def test_names_a_dropped_file_that_is_no_image(images: Page) -> None:
    drop(images, "#panel-image", ("broken.png", "image/png", b"\x89PNG\r\n\x1a\n not an image"))
    expect(images.get_by_role("alert")).to_contain_text("broken.png")
    expect(images.locator("#image-start")).to_be_hidden()


def test_two_pages_see_their_own_jobs(images: Page, opened: Any) -> None:
    other: Page = opened()
    open_tab(other, "Images")
    previews = "() => document.getElementById('image-result').alt"
    size = {"width": "96", "height": "96", "steps": "40"}
    fill(images, text=PROMPT, seed="1", **size)
    fill(other, text="a large blue square on white", seed="2", **size)
    pages: Iterable[Page] = (images, other)
    for page in pages:
        page.get_by_role("button", name="Generate").click()
    expect(images.locator("#image-result")).to_be_visible()
    assert "blue" not in images.evaluate(previews)
    expect(other.locator("#image-figure")).to_be_hidden()  # its job waits
    other.locator("#image-stop").click()
    expect(other.locator("#image-status")).to_have_text("Stopped.")
    expect(images.locator("#image-status")).to_have_text("Done.")
    expect(images.get_by_role("img", name=PROMPT).first).to_be_visible()
