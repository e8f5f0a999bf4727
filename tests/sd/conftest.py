"""Fixtures: a FLUX with random weights, with its text encoder and its auto-encoder in one file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sd.support import flux_params, small

import cyllama
from cyllama.sd import SDContext


@pytest.fixture(scope="session")
def flux_path() -> Path:
    return cyllama.models.get("tiny-flux-random")


@pytest.fixture(scope="session")
def flux(flux_path: Path) -> Iterator[SDContext]:
    """A context with the VAE encoder."""
    with SDContext(flux_params(flux_path, vae_decode_only=False)) as context:
        yield context


@pytest.fixture(scope="session")
def base_image(flux: SDContext) -> np.ndarray:
    """The image of the default request."""
    (image,) = flux.generate_image(small())
    return image
