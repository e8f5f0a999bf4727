"""Images, audio, and the parameters in image files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import numpy as np
import soundfile
from PIL import Image

from cyllama.errors import MediaError
from cyllama.media.audio import load_audio
from cyllama.media.image import to_mask, to_pixels
from cyllama.sd.metadata import infotext, parse_infotext, png_info, read_parameters, user_comment
from fuzz.target import Target, documented
from fuzz.tiny_model import temporary_path

__all__ = ["TARGETS"]

MAX_PIXELS, MAX_SECONDS = 1 << 20, 20.0
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "ICO", "PPM", "TGA", "PCX", "SGI", "DDS", "XBM", "MSP", "IM")
PARAMETERS = {
    "prompt": "a lighthouse <lora:ink:0.8>",
    "negative_prompt": "people",
    "steps": 20,
    "sampler": "euler_a",
    "cfg_scale": 7.0,
    "seed": 42,
    "width": 64,
    "height": 64,
    "sigmas": [1.0, 0.0],
    "model": 'v1, "5"',
}


def image_seeds() -> Iterator[bytes]:
    """Yield small images in the formats that Pillow writes, some with parameters."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    image = Image.fromarray(pixels)
    for name in FORMATS:
        for mode in ("RGB", "1" if name in ("XBM", "MSP") else "P"):
            file = io.BytesIO()
            try:
                image.convert(mode).save(file, name)
            except (OSError, KeyError, ValueError):
                continue  # this Pillow does not write the format, or not with this mode
            yield file.getvalue()
    file = io.BytesIO()
    image.save(file, "PNG", pnginfo=png_info(infotext(PARAMETERS)))
    yield file.getvalue()
    file = io.BytesIO()
    image.save(file, "JPEG", exif=user_comment(infotext(PARAMETERS)))
    yield file.getvalue()
    for mode in ("L", "LA", "RGBA", "CMYK", "I;16", "F"):
        file = io.BytesIO()
        converted = image.convert("L").convert(mode) if mode == "I;16" else image.convert(mode)
        converted.save(file, "TIFF" if mode in ("CMYK", "F", "LA") else "PNG")
        yield file.getvalue()


def read_image() -> Callable[[bytes], None]:
    """Return a function that decodes an image, as a mask as well, and reads its parameters."""
    path = temporary_path("image")

    def read(data: bytes) -> None:
        path.write_bytes(data)
        with documented(MediaError):
            read_parameters(path)
        with documented(MediaError, ValueError):
            to_mask(data, max_pixels=MAX_PIXELS)
        with documented(MediaError, ValueError):
            to_pixels(path, max_pixels=MAX_PIXELS)

    return read


def audio_seeds() -> Iterator[bytes]:
    """Yield short clips in the formats that libsndfile writes."""
    samples = 0.1 * np.sin(np.arange(400) / 5)
    for name, subtypes in {
        "WAV": ("PCM_16", "FLOAT", "ULAW", "MS_ADPCM", "GSM610"),
        "FLAC": ("PCM_16",),
        "OGG": ("VORBIS", "OPUS"),
        "MP3": ("MPEG_LAYER_III",),
        "AIFF": ("PCM_16",),
        "AU": ("PCM_16",),
        "CAF": ("PCM_16", "ALAC_16"),
        "W64": ("PCM_16",),
        "VOC": ("PCM_16",),
        "NIST": ("PCM_16",),
    }.items():
        for subtype in subtypes:
            file = io.BytesIO()
            soundfile.write(file, samples, 16_000, format=name, subtype=subtype)
            yield file.getvalue()
    file = io.BytesIO()
    soundfile.write(file, np.stack([samples, samples], 1), 8_000, format="WAV")
    yield file.getvalue()


def read_audio(data: bytes) -> None:
    """Decode audio."""
    with documented(MediaError, ValueError):
        samples = load_audio(data, max_seconds=MAX_SECONDS)
        assert samples.dtype == np.float32 and len(samples) <= (MAX_SECONDS + 1) * 16_000


def infotext_seeds() -> Iterator[bytes]:
    """Yield the parameters of an image, of cyllama and of other programs."""
    yield infotext(PARAMETERS).encode()
    yield b'a, b\nNegative prompt: c\nSteps: 20, Sampler: DPM++ 2M Karras, Size: 512x512, Lora hashes: "a: 1, b: 2"'
    yield b'a\nSteps: 1, Seed: 99999999999999999999, CFG scale: nan, Sigmas: "[1, 2", Size: 1x'


def read_infotext(data: bytes) -> None:
    """Parse parameters, which raises nothing."""
    found = parse_infotext(data.decode("utf-8", "replace"))
    assert isinstance(found["prompt"], str) and isinstance(found["negative_prompt"], str)


TARGETS = {
    "image": Target(read_image, image_seeds),
    "audio": Target(lambda: read_audio, audio_seeds),
    "infotext": Target(lambda: read_infotext, infotext_seeds),
}
