"""Images of the tiny-shapes model match their prompts; reading.py recognizes their content."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from data.process import resident_bytes
from sd.reading import read

from cyllama.models.generated.tiny_shapes import RELATIONS, SIDE, encode
from cyllama.sd import StableDiffusion, detect

SEED = 1


@dataclass(frozen=True)
class Expected:
    """The content that a prompt describes; `vertical` if one of two objects is above the other."""

    prompt: str
    things: tuple[tuple[str, str], ...]
    background: str = "white"
    vertical: bool = False


def one(colour: str, shape: str, background: str = "", size: str = "") -> Expected:
    words = " ".join(filter(None, ["a", size, colour, shape, f"on {background}" if background else ""]))
    return Expected(words, ((colour, shape),), background or "white")


def two(first: str, relation: str, second: str, background: str = "") -> Expected:
    phrase = " ".join(RELATIONS[relation])
    words = " ".join(filter(None, ["a", first, phrase, "a", second, f"on {background}" if background else ""]))
    things = [tuple(words.split()[-2:]) for words in (first, second)]
    return Expected(words, tuple(things), background or "white", relation in ("above", "below"))


PROMPTS = [
    one("red", "circle"),
    one("green", "square"),
    one("blue", "triangle"),
    one("yellow", "square"),
    one("orange", "cross"),
    one("purple", "ring"),
    one("pink", "square"),
    one("black", "circle"),
    one("gray", "triangle"),
    one("blue", "circle", "yellow"),
    one("white", "square", "red"),
    one("green", "cross", "black"),
    one("red", "ring", "green"),
    one("yellow", "triangle", "purple"),
    one("orange", "ring", "blue"),
    one("pink", "circle", "gray"),
    one("black", "cross", "orange"),
    one("purple", "square", "pink"),
    one("red", "square", size="large"),
    one("blue", "ring", size="large"),
    one("green", "circle", size="small"),
    one("black", "square", size="small"),
    one("yellow", "circle", "blue", "large"),
    one("white", "triangle", "black", "large"),
    one("gray", "ring"),
    one("white", "circle", "blue"),
    one("pink", "triangle", "black"),
    one("purple", "circle", "yellow", "small"),
    one("orange", "square", "green", "large"),
    one("red", "cross", size="large"),
    one("blue", "cross", "pink"),
    one("green", "triangle", "orange"),
    two("red circle", "and", "blue circle"),
    two("green square", "left", "yellow square"),
    two("black triangle", "right", "orange triangle"),
    two("purple circle", "above", "green circle"),
    two("orange cross", "above", "blue cross"),
    two("white square", "below", "red square", "black"),
    two("yellow circle", "left", "pink circle", "blue"),
    two("gray ring", "below", "red ring"),
]


@pytest.fixture(scope="module")
def sd() -> Iterator[StableDiffusion]:
    with StableDiffusion("tiny-shapes") as model:
        yield model


def generate(sd: StableDiffusion, prompt: str, **options: object) -> np.ndarray:
    (pixels,) = sd.txt2img(prompt, output_type="np", **{"seed": SEED, **options})
    return pixels


def test_model_has_its_family_and_size(sd: StableDiffusion) -> None:
    assert (sd.family.name, sd.family.width, sd.family.height, sd.family.steps) == ("Flux", SIDE, SIDE, 20)
    assert sd.family.guidance is None


def test_generates_the_shapes_of_forty_prompts(sd: StableDiffusion) -> None:
    """At least 95% of the images have exactly the colours of the prompt, and at least 90% the shapes."""
    assert len(PROMPTS) == len({expected.prompt for expected in PROMPTS}) == 40
    colours, shapes, axes, wrong = 0, [], [], []
    for expected in PROMPTS:
        seen = read(generate(sd, expected.prompt, steps=10))  # half of the default, which is enough
        right = seen.background == expected.background and seen.colours == {
            expected.background,
            *(c for c, _ in expected.things),
        }
        colours += right
        found = {thing.colour: thing.shape for thing in seen.things}
        shapes += [found.get(colour) == shape for colour, shape in expected.things]
        if len(expected.things) == 2:
            axes.append(seen.vertical == expected.vertical)
        if not right or any(found.get(colour) != shape for colour, shape in expected.things):
            wrong.append(f"{expected.prompt}: {seen}")
    report = "\n".join(wrong)
    assert colours >= 38, report
    assert np.mean(shapes) >= 0.9, report
    assert np.mean(axes) == 1.0, report


def test_sizes_differ(sd: StableDiffusion) -> None:
    areas = [read(generate(sd, f"a {size} red circle")).things[0].area for size in ("small", "", "large")]
    assert areas[0] < 0.8 * areas[1] < 0.8 * 0.9 * areas[2]


def test_synonyms_give_the_same_image(sd: StableDiffusion) -> None:
    np.testing.assert_array_equal(generate(sd, "a tiny grey disc"), generate(sd, "a small gray circle"))


def test_generates_smaller_images(sd: StableDiffusion) -> None:
    seen = read(generate(sd, "a blue square on yellow", width=128, height=128))
    assert seen.background == "yellow" and [(t.colour, t.shape) for t in seen.things] == [("blue", "square")]


def test_guidance_keeps_the_prompt(sd: StableDiffusion) -> None:
    plain, guided = generate(sd, "a red circle"), generate(sd, "a red circle", cfg_scale=2.0)
    seen = read(guided)
    assert (plain != guided).any()
    assert [(t.colour, t.shape) for t in seen.things] == [("red", "circle")]


def test_a_batch_equals_single_images(sd: StableDiffusion) -> None:
    batch = sd.txt2img("a green ring", batch_size=3, seed=5, output_type="np")
    assert batch.seeds == [5, 6, 7]
    for seed, image in zip(batch.seeds, batch, strict=True):
        np.testing.assert_array_equal(image, generate(sd, "a green ring", seed=seed))
    assert (batch[0] != batch[1]).any()


def test_strength_of_image_to_image(sd: StableDiffusion) -> None:
    start = generate(sd, "a red circle")
    (kept,) = sd.img2img("a blue square", start, strength=0.2, seed=SEED, output_type="np")
    (changed,) = sd.img2img("a blue square", start, strength=1.0, seed=SEED, output_type="np")
    assert np.abs(kept.astype(int) - start).mean() < 12
    assert [(t.colour, t.shape) for t in read(kept).things] == [("red", "circle")]
    assert [(t.colour, t.shape) for t in read(changed).things] == [("blue", "square")]


def test_inpainting_changes_only_the_mask(sd: StableDiffusion) -> None:
    start = generate(sd, "a large red square")
    mask = np.zeros(start.shape[:2], np.uint8)
    mask[:, : SIDE // 2] = 255
    (painted,) = sd.inpaint("a large blue square", start, mask, strength=1.0, seed=3, output_type="np")
    np.testing.assert_array_equal(painted[mask == 0], start[mask == 0])
    assert [thing.colour for thing in read(painted).things] == ["blue", "red"]


def test_memory_does_not_grow(sd: StableDiffusion) -> None:
    """Twenty images use at most 3 MB more than the first five."""

    def run(times: int) -> int:
        for _ in range(times):
            sd.txt2img("a red circle", steps=2, seed=1)
        gc.collect()
        return resident_bytes()

    before = run(5)
    assert run(20) - before < 3 * 2**20


def test_encoding_depends_on_the_order_of_words() -> None:
    same = encode([["a", "red", "circle"], ["the", "crimson", "disc"], ["a", "circle", "red"], []])
    assert same.shape == (4, 768) and same.dtype == np.float32
    np.testing.assert_array_equal(same[0], same[1])
    assert np.abs(same[0] - same[2]).max() > 1
    assert np.abs(same[0] - same[3]).max() > 1


def test_detects_the_family_of_the_file() -> None:
    import cyllama

    found = detect(cyllama.models.get("tiny-shapes"))
    assert found is not None and found.about == "without distilled guidance"
