"""The model that the package carries draws what the prompts say, and the pictures are read to see it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from data.process import resident_bytes
from sd.reading import read

from cyllama.models.tiny_shapes import RELATIONS, SIDE, encode
from cyllama.sd import StableDiffusion, detect

SEED = 1


@dataclass(frozen=True)
class Asked:
    """What a prompt asks for; whether of two things one is above the other."""

    prompt: str
    things: tuple[tuple[str, str], ...]
    background: str = "white"
    vertical: bool = False


def one(colour: str, shape: str, background: str = "", size: str = "") -> Asked:
    words = " ".join(filter(None, ["a", size, colour, shape, f"on {background}" if background else ""]))
    return Asked(words, ((colour, shape),), background or "white")


def two(first: str, relation: str, second: str, background: str = "") -> Asked:
    phrase = " ".join(RELATIONS[relation])
    words = " ".join(filter(None, ["a", first, phrase, "a", second, f"on {background}" if background else ""]))
    things = [tuple(words.split()[-2:]) for words in (first, second)]
    return Asked(words, tuple(things), background or "white", relation in ("above", "below"))


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


def draw(sd: StableDiffusion, prompt: str, **options: object) -> np.ndarray:
    (pixels,) = sd.txt2img(prompt, output_type="np", **{"seed": SEED, **options})
    return pixels


def test_the_model_is_as_it_says(sd: StableDiffusion) -> None:
    assert (sd.family.name, sd.family.width, sd.family.height, sd.family.steps) == ("Flux", SIDE, SIDE, 20)
    assert sd.family.guidance is None


def test_forty_prompts(sd: StableDiffusion) -> None:
    """The colours asked for in at least 95% of the pictures, and no others; the shapes in at least 90%."""
    assert len(PROMPTS) == len({asked.prompt for asked in PROMPTS}) == 40
    colours, shapes, axes, wrong = 0, [], [], []
    for asked in PROMPTS:
        seen = read(draw(sd, asked.prompt))
        right = seen.background == asked.background and seen.colours == {
            asked.background,
            *(c for c, _ in asked.things),
        }
        colours += right
        drawn = {thing.colour: thing.shape for thing in seen.things}
        shapes += [drawn.get(colour) == shape for colour, shape in asked.things]
        if len(asked.things) == 2:
            axes.append(seen.vertical == asked.vertical)
        if not right or any(drawn.get(colour) != shape for colour, shape in asked.things):
            wrong.append(f"{asked.prompt}: {seen}")
    report = "\n".join(wrong)
    assert colours >= 38, report
    assert np.mean(shapes) >= 0.9, report
    assert np.mean(axes) == 1.0, report


def test_sizes(sd: StableDiffusion) -> None:
    areas = [read(draw(sd, f"a {size} red circle")).things[0].area for size in ("small", "", "large")]
    assert areas[0] < 0.8 * areas[1] < 0.8 * 0.9 * areas[2]


def test_words_of_one_meaning(sd: StableDiffusion) -> None:
    np.testing.assert_array_equal(draw(sd, "a tiny grey disc"), draw(sd, "a small gray circle"))


def test_a_smaller_picture(sd: StableDiffusion) -> None:
    seen = read(draw(sd, "a blue square on yellow", width=128, height=128))
    assert seen.background == "yellow" and [(t.colour, t.shape) for t in seen.things] == [("blue", "square")]


def test_guidance_against_a_prompt(sd: StableDiffusion) -> None:
    plain, guided = draw(sd, "a red circle"), draw(sd, "a red circle", cfg_scale=2.0)
    seen = read(guided)
    assert (plain != guided).any()
    assert [(t.colour, t.shape) for t in seen.things] == [("red", "circle")]


def test_a_batch_is_its_pictures_one_by_one(sd: StableDiffusion) -> None:
    batch = sd.txt2img("a green ring", batch_size=3, seed=5, output_type="np")
    assert batch.seeds == [5, 6, 7]
    for seed, picture in zip(batch.seeds, batch, strict=True):
        np.testing.assert_array_equal(picture, draw(sd, "a green ring", seed=seed))
    assert (batch[0] != batch[1]).any()


def test_image_to_image(sd: StableDiffusion) -> None:
    """A low strength keeps the picture, a high one draws the prompt."""
    start = draw(sd, "a red circle")
    (kept,) = sd.img2img("a blue square", start, strength=0.2, seed=SEED, output_type="np")
    (changed,) = sd.img2img("a blue square", start, strength=1.0, seed=SEED, output_type="np")
    assert np.abs(kept.astype(int) - start).mean() < 12
    assert [(t.colour, t.shape) for t in read(kept).things] == [("red", "circle")]
    assert [(t.colour, t.shape) for t in read(changed).things] == [("blue", "square")]


def test_inpainting_changes_the_mask_alone(sd: StableDiffusion) -> None:
    start = draw(sd, "a large red square")
    mask = np.zeros(start.shape[:2], np.uint8)
    mask[:, : SIDE // 2] = 255
    (painted,) = sd.inpaint("a large blue square", start, mask, strength=1.0, seed=3, output_type="np")
    np.testing.assert_array_equal(painted[mask == 0], start[mask == 0])
    assert [thing.colour for thing in read(painted).things] == ["blue", "red"]


def test_memory_stays(sd: StableDiffusion) -> None:
    """Twenty pictures end within 3 MB of where the first five ended."""

    def run(times: int) -> int:
        for _ in range(times):
            sd.txt2img("a red circle", steps=2, seed=1)
        gc.collect()
        return resident_bytes()

    before = run(5)
    assert run(20) - before < 3 * 2**20


def test_the_encoding_is_one_of_words_in_order() -> None:
    same = encode([["a", "red", "circle"], ["the", "crimson", "disc"], ["a", "circle", "red"], []])
    assert same.shape == (4, 768) and same.dtype == np.float32
    np.testing.assert_array_equal(same[0], same[1])
    assert np.abs(same[0] - same[2]).max() > 1
    assert np.abs(same[0] - same[3]).max() > 1


def test_detected_by_its_file() -> None:
    import cyllama

    found = detect(cyllama.models.get("tiny-shapes"))
    assert found is not None and found.about == "without distilled guidance"
