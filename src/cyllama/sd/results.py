"""What comes back: pictures that know their parameters, and videos."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from PIL import Image

from cyllama._native.files import atomic_path
from cyllama.media.image import Pixels
from cyllama.sd.png import KEY, png_info, user_comment
from cyllama.sd.video import save_video

__all__ = ["ImageResult", "Picture", "VideoResult"]

Parameters = dict[str, Any]

EXIF_FORMATS = ("JPEG", "WEBP")


class Picture(Image.Image):
    """A Pillow image (RGB) whose ``info["parameters"]`` tells how it was made; `save` writes that into the file."""

    @classmethod
    def of(cls, pixels: Pixels, text: str = "") -> Picture:
        """A picture of (height, width, 3) uint8 pixels, which are copied."""
        plain = Image.fromarray(pixels)
        plain.__class__ = cls  # has a method more, and no data
        if text:
            plain.info[KEY] = text
        return cast(Picture, plain)

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        """Write the picture, as Pillow does; a file appears whole, or the one before stays.

        Parameters
        ----------
        fp : path or binary file object
        format : str, optional
            By default, that of the path's ending. PNG, JPEG and WebP carry the parameters.
        **params
            Of Pillow's writer; ``pnginfo=None`` or ``exif=None`` leaves the parameters out.
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
            super().save(fp, format, **params)  # a file object, a device, or a path whose format Pillow refuses
            return
        with atomic_path(name) as temporary:
            super().save(temporary, kind, **params)


class ImageResult(list[Any]):
    """The pictures of a call, as a list.

    Attributes
    ----------
    images : list
        The same: Pillow images, or arrays (height, width, 3) uint8 with ``output_type="np"``.
    seeds : list of int
        Of each picture: it alone is made again with this ``seed`` and ``batch_size=1``.
    parameters : dict
        What was used, under the names of the options, with the defaults filled in; ``seed`` is the first one.
    infotexts : list of str
        The same for each picture as the text that its file carries.
    """

    def __init__(
        self, images: Sequence[Any], seeds: Sequence[int], parameters: Parameters, infotexts: Sequence[str]
    ) -> None:
        super().__init__(images)
        self.seeds = list(seeds)
        self.parameters = parameters
        self.infotexts = list(infotexts)

    @property
    def images(self) -> list[Any]:
        """The pictures as a plain list."""
        return list(self)

    def save(self, path: str | os.PathLike[str]) -> list[Path]:
        """Write all pictures; several get numbers: ``a.png`` becomes ``a-1.png``, ``a-2.png``, ...

        Returns
        -------
        list of pathlib.Path
            The files.
        """
        target = Path(path)
        names = [target] if len(self) == 1 else [target.with_stem(f"{target.stem}-{i + 1}") for i in range(len(self))]
        for name, image, text in zip(names, self, self.infotexts, strict=True):
            picture = image if isinstance(image, Image.Image) else Picture.of(image, text)
            picture.save(name)
        return names

    def to_dict(self) -> dict[str, Any]:
        """Seeds, parameters and texts, without the pixels."""
        return {"seeds": self.seeds, "parameters": self.parameters, "infotexts": self.infotexts}


class VideoResult(list[Any]):
    """The frames of a video, as a list.

    Attributes
    ----------
    frames : list
        The same: Pillow images, or arrays (height, width, 3) uint8 with ``output_type="np"``.
    fps : int
        Frames of a second.
    seed : int
    parameters : dict
        What was used, under the names of the options, with the defaults filled in.
    """

    def __init__(self, frames: Sequence[Any], fps: int, parameters: Parameters) -> None:
        super().__init__(frames)
        self.fps = fps
        self.seed: int = parameters["seed"]
        self.parameters = parameters

    @property
    def frames(self) -> list[Any]:
        """The frames as a plain list."""
        return list(self)

    def save(self, path: str | os.PathLike[str], *, fps: int | None = None) -> Path:
        """Write the video as gif, webp or mp4, by the ending of `path`, or as numbered pictures into a folder.

        See `cyllama.sd.save_video`.
        """
        return save_video(self, path, fps=self.fps if fps is None else fps)
