"""Videos with ffmpeg: frames, timestamps, prompts, invalid arguments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from llava.projectors import projector_file, text_model
from llava.projectors_images import IMAGES

from cyllama.errors import ClosedError, InUseError, MediaError, UnsupportedError
from cyllama.llama import LlamaModel
from cyllama.llava import Bitmap, MtmdContext, Video, VideoParams

CLIP = Path(__file__).resolve().parents[2] / "thirdparty" / "llama.cpp" / "tools" / "mtmd" / "test-3.mp4"


def test_reads_frames_and_timestamps(mtmd: MtmdContext) -> None:
    with Video(mtmd, CLIP, VideoParams(fps_target=2.0, timestamp_interval_ms=1000)) as video:
        info = video.info
        assert info["fps"] == 2.0 and info["width"] > 0 and info["n_frames"] > 2
        items = list(video)
        assert video.read_next() is None
    frames = [item for item in items if isinstance(item, Bitmap)]
    texts = [item for item in items if isinstance(item, str)]
    assert abs(len(frames) - info["n_frames"]) <= 2
    assert all((frame.nx, frame.ny) == (info["width"], info["height"]) and frame.mergeable for frame in frames)
    assert frames[0].data.std() > 0 and (frames[0].data != frames[-1].data).any()
    assert texts[0] == "Video:" and texts[1].startswith("[0m0.00s]") and len(texts) > 2


def test_frames_are_equal_from_bytes(mtmd: MtmdContext) -> None:
    params = VideoParams(fps_target=1.0)
    with Video(mtmd, CLIP, params) as file, Video(mtmd, CLIP.read_bytes(), params) as data:
        first, second = list(file), list(data)
    assert len(first) == len(second) > 2
    for a, b in zip(first, second, strict=True):
        if isinstance(a, str):
            assert a == b
        else:
            np.testing.assert_array_equal(a.data, b.data)


def test_video_in_a_prompt(mtmd: MtmdContext) -> None:
    with Video(mtmd, CLIP, VideoParams(fps_target=1.0, timestamp_interval_ms=0)) as video:
        lazy = Bitmap.lazy(mtmd, lambda i: video.read_next() if i < 4 else None)
        chunks = mtmd.tokenize("<__media__> What happens?", [lazy])
    images = [chunk for chunk in chunks if chunk.type.name == "IMAGE"]
    assert len(images) >= 3 and np.isfinite(mtmd.encode(images[0])).all()


def test_reads_a_video_file_as_a_bitmap(mtmd: MtmdContext) -> None:
    bitmap = Bitmap.from_file(mtmd, CLIP, video=VideoParams(fps_target=0.5, timestamp_interval_ms=0))
    assert bitmap.is_lazy and len(bitmap.id) == 64
    with pytest.raises(InUseError):
        mtmd.close()
    chunks = mtmd.tokenize("<__media__>", [bitmap])
    names = {chunk.id for chunk in chunks if chunk.type.name == "IMAGE"}
    assert len(names) > 1 and all(name.startswith(f"{bitmap.id}+") for name in names)
    bitmap.close()


def test_merges_frames_for_models_that_support_it(tmp_path: Path) -> None:
    family = IMAGES["qwen2vl_merger"]
    with LlamaModel(text_model(family, tmp_path)) as model:
        with MtmdContext(projector_file("qwen2vl_merger", family, tmp_path), model) as qwen:
            array = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
            pair = [Bitmap.from_pixels(array), Bitmap.from_pixels(array[::-1])]
            apart = qwen.tokenize_from_parts(list(pair))
            for bitmap in pair:
                bitmap.set_mergeable(True)
            joined = qwen.tokenize_from_parts(list(pair))
            count = [sum(chunk.type.name == "IMAGE" for chunk in chunks) for chunks in (apart, joined)]
            assert count == [2, 1]
            image = next(chunk for chunk in joined if chunk.type.name == "IMAGE")
            assert np.isfinite(qwen.encode(image)).all()
            del image, apart, joined


def test_rejects_files_that_are_not_videos(mtmd: MtmdContext, tmp_path: Path) -> None:
    text = tmp_path / "a.mp4"
    text.write_text("no video at all")
    for source in (text, b"no video at all", CLIP.read_bytes()[:500]):
        with pytest.raises(MediaError, match="video"):
            Video(mtmd, source)
    with pytest.raises(FileNotFoundError):
        Video(mtmd, tmp_path / "none.mp4")
    with pytest.raises(ValueError, match="empty"):
        Video(mtmd, b"")
    with pytest.raises(TypeError):
        Video(mtmd, 7)


@pytest.mark.parametrize(
    ("params", "kind", "message"),
    [
        ({"fps_target": float("nan")}, ValueError, "fps_target is nan"),
        ({"fps_target": "4"}, TypeError, "fps_target is '4'"),
        ({"timestamp_interval_ms": 1.5}, TypeError, "timestamp_interval_ms is 1.5"),
        ({"ffmpeg_bin_dir": "/no/such"}, NotADirectoryError, "/no/such"),
    ],
)
def test_rejects_invalid_parameters(
    mtmd: MtmdContext, params: dict[str, object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        Video(mtmd, CLIP, VideoParams(**params))
    with pytest.raises(TypeError, match="expected VideoParams"):
        Video(mtmd, CLIP, {"fps_target": 1.0})


def test_error_without_ffmpeg(mtmd: MtmdContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for use in (
        lambda: Video(mtmd, CLIP, VideoParams(ffmpeg_bin_dir=tmp_path)),
        lambda: Bitmap.from_file(mtmd, CLIP, video=VideoParams(ffmpeg_bin_dir=tmp_path)),
    ):
        with pytest.raises(UnsupportedError, match="ffmpeg and ffprobe in"):
            use()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedError, match="in PATH"):
        Video(mtmd, CLIP)


def test_close_and_parent(mtmd: MtmdContext) -> None:
    video = Video(mtmd, CLIP)
    with pytest.raises(InUseError, match="MtmdContext cannot be closed"):
        mtmd.close()
    video.close()
    video.close()
    with pytest.raises(ClosedError):
        video.read_next()
