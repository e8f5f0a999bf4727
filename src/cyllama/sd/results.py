"""Results of image and video generation."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image

from cyllama import _html
from cyllama._native.files import write_file
from cyllama._paths import expanded
from cyllama.media.image import Pixels
from cyllama.sd.metadata import KEY, Parameters, png_info, user_comment
from cyllama.sd.video import save_video

__all__ = ["GeneratedImage", "ImageResult", "VideoResult"]

EXIF_FORMATS = ("JPEG", "WEBP")
PREVIEW_FRAMES, PREVIEW_SIDE, PREVIEW_BYTES = 48, 256, 1 << 20  # limits of a video in a notebook


class GeneratedImage(Image.Image):
    """A Pillow image (RGB) with its generation parameters.

    ``info["parameters"]`` has them as text, and `save` writes that text into the file. A notebook shows the image.
    """

    @classmethod
    def from_pixels(cls, pixels: Pixels, text: str = "") -> GeneratedImage:
        """Make an image of pixels, which are copied.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (height, width, 3)
        text : str
            The parameters, as `cyllama.sd.metadata.infotext` writes them.
        """
        image = Image.fromarray(pixels)
        image.__class__ = cls  # adds methods, no data
        if text:
            image.info[KEY] = text
        return cast(GeneratedImage, image)

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        """Write the image, as Pillow does; a file is replaced only when it is complete.

        Parameters
        ----------
        fp : path or binary file object
        format : str, optional
            By default, the format of the path's suffix. PNG, JPEG and WebP files carry the parameters.
        **params
            Options of Pillow's writer; ``pnginfo=None`` or ``exif=None`` leaves the parameters out.
        """
        kind = format
        name = fp if isinstance(fp, str | bytes | os.PathLike) else getattr(fp, "name", None)
        if kind is None and isinstance(name, str | bytes | os.PathLike):
            kind = Image.registered_extensions().get(os.path.splitext(os.fsdecode(name))[1].casefold())
        text = self.info.get(KEY)
        if text and (kind or "").upper() == "PNG":
            params.setdefault("pnginfo", png_info(text))
        elif text and (kind or "").upper() in EXIF_FORMATS:
            params.setdefault("exif", user_comment(text))
        params = {name: value for name, value in params.items() if value is not None}
        if kind is None or name is not fp or (os.path.exists(name) and not os.path.isfile(name)):
            super().save(fp, format, **params)  # a file object, a device, or a path that Pillow rejects
            return
        out = io.BytesIO()  # Pillow does not notice a file that is written in part
        super().save(out, kind, **params)
        write_file(name, out.getbuffer())

    def __repr__(self) -> str:
        return f"<GeneratedImage {self.width}x{self.height}>"


if TYPE_CHECKING:
    from typing_extensions import TypeVar

    ImageT = TypeVar("ImageT", default=GeneratedImage)
    FrameT = TypeVar("FrameT", default=Image.Image)
else:
    from typing import TypeVar

    ImageT = TypeVar("ImageT")
    FrameT = TypeVar("FrameT")


class ImageResult(list[ImageT]):
    """The images of a call, as a list. A notebook shows them.

    Items are `GeneratedImage`, or arrays (height, width, 3) of uint8 with ``output_type="np"``.

    Attributes
    ----------
    seeds : list of int
        The seed of each image; with it and ``batch_size=1`` the image is generated again.
    parameters : dict
        The parameters by the name of the option, with the defaults filled in; ``seed`` is the first seed.
    infotexts : list of str
        The parameters of each image, as the text that its file carries.
    """

    def __init__(
        self, images: Sequence[ImageT], seeds: Sequence[int], parameters: Parameters, infotexts: Sequence[str]
    ) -> None:
        super().__init__(images)
        self.seeds = list(seeds)
        self.parameters = parameters
        self.infotexts = list(infotexts)

    @property
    def images(self) -> list[ImageT]:
        """The images as a plain list."""
        return list(self)

    def save(self, path: str | os.PathLike[str]) -> list[Path]:
        """Write all images; several get numbers: ``a.png`` becomes ``a-1.png``, ``a-2.png``, ...

        Returns
        -------
        list of pathlib.Path
            The files.
        """
        target = expanded(path)
        names = [target] if len(self) == 1 else [target.with_stem(f"{target.stem}-{i + 1}") for i in range(len(self))]
        for name, image, text in zip(names, self, self.infotexts, strict=True):
            if isinstance(image, Image.Image):
                image.save(name)
            else:
                GeneratedImage.from_pixels(cast(Pixels, image), text).save(name)
        return names

    def to_dict(self) -> dict[str, Any]:
        """Return seeds, parameters and texts, without the pixels."""
        return {"seeds": self.seeds, "parameters": self.parameters, "infotexts": self.infotexts}

    def __repr__(self) -> str:
        return f"<ImageResult {_count(self, 'image')}, seeds {', '.join(map(str, self.seeds)) or 'none'}>"

    def _repr_html_(self) -> str:
        prompt = str(self.parameters.get("prompt", ""))
        titles = [f"seed {seed}" for seed in self.seeds]
        return _html.table({"prompt": prompt}) + _html.image_grid([_to_image(item) for item in self], titles)


class VideoResult(list[FrameT]):
    """The frames of a video, as a list. A notebook shows a reduced animation.

    Items are Pillow images, or arrays (height, width, 3) of uint8 with ``output_type="np"``.

    Attributes
    ----------
    fps : int
        Frames per second.
    seed : int
    parameters : dict
        The parameters by the name of the option, with the defaults filled in.
    """

    def __init__(self, frames: Sequence[FrameT], fps: int, parameters: Parameters) -> None:
        super().__init__(frames)
        self.fps = fps
        self.seed: int = parameters["seed"]
        self.parameters = parameters

    @property
    def frames(self) -> list[FrameT]:
        """The frames as a plain list."""
        return list(self)

    def save(self, path: str | os.PathLike[str], *, fps: int | None = None) -> Path:
        """Write the video; see `cyllama.sd.save_video`.

        Parameters
        ----------
        path : path
            A ``.gif``, ``.webp`` or ``.mp4`` file, or a folder for numbered images.
        fps : int, optional
            By default, that of the result.
        """
        return save_video(self, path, fps=self.fps if fps is None else fps)

    def __repr__(self) -> str:
        return f"<VideoResult {_count(self, 'frame')}, {self.fps} fps, seed {self.seed}>"

    def _repr_html_(self) -> str:
        rows = {"prompt": self.parameters.get("prompt"), "video": repr(self)[1:-1]}
        data = _animation(self, self.fps) if self else b""
        image = f'<img src="{_html.data_url(data, "image/webp")}">' if 0 < len(data) <= PREVIEW_BYTES else ""
        return _html.table(rows) + image


def _count(items: Sequence[Any], noun: str) -> str:
    if not items:
        return f"no {noun}s"
    image = _to_image(items[0])
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'} of {image.width}x{image.height}"


def _to_image(item: Any) -> Image.Image:
    return item if isinstance(item, Image.Image) else Image.fromarray(np.asarray(item))


def _animation(frames: Sequence[Any], fps: int) -> bytes:
    """Return a reduced WebP animation: at most 48 frames of at most 256 pixels a side."""
    step = -(-len(frames) // PREVIEW_FRAMES)
    chosen = [_to_image(frame).convert("RGB") for frame in frames[::step]]
    for image in chosen:
        image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    out = io.BytesIO()
    first, *rest = chosen
    duration = max(1, 1000 * step // fps)
    first.save(out, "WEBP", save_all=True, append_images=rest, duration=duration, loop=0, quality=60, method=0)
    return out.getvalue()
