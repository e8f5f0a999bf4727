"""Models of true architecture and size, with random weights: loaded, one step, freed. Run by ``make test-heavy``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sd.architectures import write_sd1, write_sd3, write_sdxl, write_wan

from cyllama.sd import StableDiffusion, detect

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize(("write", "family"), [(write_sd1, "SD 1.x"), (write_sdxl, "SDXL"), (write_sd3, "SD3.x")])
def test_pictures(write: Callable[[Path], Path], family: str, tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf")
    found = detect(path)
    assert found is not None and found.name == family
    steps: list[int] = []
    with StableDiffusion(path) as sd:
        assert sd.family.name == family
        options = {"width": 64, "height": 64, "steps": 1, "seed": 1, "output_type": "np"}
        (pixels,) = sd.txt2img(
            "a (red:1.2) circle", negative_prompt="blue", on_step=lambda s, *_: steps.append(s), **options
        )
        assert pixels.shape == (64, 64, 3) and pixels.std() > 1 and steps == [0, 1]
        (again,) = sd.txt2img("a (red:1.2) circle", negative_prompt="blue", **options)
        np.testing.assert_array_equal(pixels, again)
        (other,) = sd.txt2img("a square", **options)
        (started,) = sd.img2img(
            "a square", pixels, strength=0.9, clip_skip=2, sampler="Euler a", **options | {"steps": 3}
        )
        assert (other != pixels).any() and (started != pixels).any()


def test_videos(tmp_path: Path) -> None:
    path = write_wan(tmp_path / "model.gguf")
    found = detect(path)
    assert found is not None and found.name == "Wan 2.x" and found.makes_videos
    options = {"width": 64, "height": 64, "frames": 5, "steps": 1, "cfg_scale": 1.0, "seed": 1, "output_type": "np"}
    with StableDiffusion(path) as sd:
        video = sd.txt2vid("waves", **options)
        assert len(video) == 5 and video.fps == 16
        assert all(frame.shape == (64, 64, 3) and frame.std() > 1 for frame in video)
        other = sd.txt2vid("a forest", **options)
        assert any((a != b).any() for a, b in zip(video, other, strict=True))
        assert video.save(tmp_path / "waves.gif").stat().st_size > 100
