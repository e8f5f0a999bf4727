"""Atomic writes: a file is complete, or the old file stays."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from data.folders import outside

from cyllama._native.files import atomic_path, final_path
from cyllama.llama import GGUFContext
from cyllama.sd.results import GeneratedImage

# A limit on the size of files simulates a full disk: writing fails half-way.
LIMITED = """
import resource, signal, sys
import numpy as np
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = sys.argv[1]
noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
{prepare}
if {limit}:
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
else:
    from pathlib import Path
    from data.folders import read_only
    writable = read_only(Path(path).parent)
    writable.__enter__()
try:
    {write}
except OSError as error:
    print(error.errno, error.filename)
"""
READ_A_MODEL = ("whisper-quantized", "llama-quantized", "converted")  # while the test runs as a user without the models
NAMED = (errno.ENOSPC, errno.EFBIG, errno.EIO)
WRITERS = {
    "image": (
        "image.png",
        "from cyllama.sd.results import GeneratedImage; image = GeneratedImage.from_pixels(noise, 'a')",
        "image.save(path)",
    ),
    "image-result": (
        "image.png",
        "from cyllama.sd.results import ImageResult; images = ImageResult([noise], [1], {}, ['a'])",
        "images.save(path)",
    ),
    "edges": (
        "edges.png",
        "from cyllama.sd import canny; edges = canny(np.random.default_rng(1).integers(0, 256, (512, 512, 3), np.uint8))",
        "edges.save(path)",
    ),
    "small-jpeg": (  # one write, of which the system takes a part
        "image.jpg",
        "from cyllama.sd.results import GeneratedImage; import io; image = GeneratedImage.from_pixels(noise)\n"
        "image.save(io.BytesIO(), 'JPEG')",
        "image.save(path, quality=100)",
    ),
    "film": (
        "video.mp4",
        "from cyllama.sd import save_video; save_video([noise] * 4, path + '.mp4', fps=4); import os; os.unlink(path + '.mp4')",
        "save_video([noise, noise[::-1].copy()] * 20, path, fps=4)",
    ),
    "frames": (
        "00001.png",
        "from cyllama.sd import save_video; from pathlib import Path",
        "save_video([noise], Path(path).parent, fps=4)",
    ),
    "whole-transcription": (
        "talk.json",
        "from cyllama.whisper import Segment, Transcription, TranscriptionInfo\n"
        "from cyllama.whisper.options import TranscribeOptions\n"
        "one = Segment(id=0, seek=0, start=0.0, end=1.0, text='word ' * 4000, tokens=())\n"
        "info = TranscriptionInfo('en', 1.0, 1.0, 1.0, None, TranscribeOptions(), None)\n"
        "whole = Transcription((one,), info, 'transcribe')",
        "whole.save(path)",
    ),
    "whisper-quantized": (
        "model.bin",
        "from cyllama.whisper import quantize; from cyllama import models; source = models.get('tiny.en')",
        "quantize(source, path, 'q5_0')",
    ),
    "llama-quantized": (
        "model.gguf",
        "from cyllama.llama import llama_model_quantize; from cyllama import models; source = models.get('tiny-random-llama')",
        "llama_model_quantize(source, path)",
    ),
    "saved-model": (
        "model.gguf",
        "from cyllama import models; from cyllama.llama import LlamaModel; model = LlamaModel(models.get('tiny-random-llama'))",
        "model.save_to_file(path)",
    ),
    "converted": (
        "model.gguf",
        "from cyllama import models; from cyllama.sd import convert; source = models.get('tiny-shapes')",
        "convert(source, path)",
    ),
    "context-state": (
        "context.bin",
        "from cyllama import models\nfrom cyllama.llama import LlamaContext, LlamaContextParams, LlamaModel, LlamaState\n"
        "model = LlamaModel(models.get('tiny-random-llama'))\n"
        "state = LlamaState(LlamaContext(model, LlamaContextParams(n_ctx=256)))",
        "state.save_file(path, [1] * 2000)",
    ),
    "vectors": (
        "vectors.npy",
        "from cyllama._native.files import atomic_path; vectors = np.zeros(9999)",
        "with atomic_path(path) as name, open(name, 'wb') as out: np.save(out, vectors)",
    ),
    "bytes": ("data.bin", "from cyllama._native.files import write_file", "write_file(path, bytes(9999))"),
    "animation": ("video.gif", "from cyllama.sd import save_video", "save_video([noise] * 4, path, fps=4)"),
    "transcription": (
        "talk.txt",
        "from cyllama.whisper.writers import SegmentWriter\nfrom cyllama.whisper import Segment\n"
        "one = Segment(id=0, seek=0, start=0.0, end=1.0, text='word ' * 4000, tokens=())",
        "with SegmentWriter(path) as out: out.write(one)",
    ),
    "state": (
        "state.bin",
        "from cyllama import LLM\nllm = LLM('tiny-random-llama', n_ctx=256, n_parallel=1)\nllm.complete('a b c d ' * 40, max_tokens=2)",
        "llm.save_state(path)",
    ),
    "gguf": (
        "model.gguf",
        "from cyllama.llama import GGUFContext\nfile = GGUFContext.empty()\n"
        "file.set('general.architecture', 'llama')\nfile.add_tensor('a', np.zeros(4096, np.float32))",
        "file.write(path)",
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_full_disk_keeps_the_old_file(name: str, tmp_path: Path) -> None:
    file, prepare, write = WRITERS[name]
    path = tmp_path / file
    path.write_bytes(b"the old content")
    number, named = failed_write(prepare, write, path, 4096)
    assert number in NAMED and named == str(path)
    assert path.read_bytes() == b"the old content"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", [name for name in WRITERS if name not in READ_A_MODEL])
def test_folder_that_cannot_be_written_keeps_the_old_file(name: str) -> None:
    file, prepare, write = WRITERS[name]
    with outside() as folder:
        path = folder / file
        path.write_bytes(b"the old content")
        number, named = failed_write(prepare, write, path, 0)
        assert number == errno.EACCES and named == str(path)
        assert path.read_bytes() == b"the old content"
        assert list(folder.iterdir()) == [path]


def failed_write(prepare: str, write: str, path: Path, limit: int) -> tuple[int, str]:
    """Return errno and file name of the OSError of a write."""
    code = LIMITED.format(prepare=prepare, write=write, limit=limit)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True, env=environment
    )
    number, _, named = done.stdout.strip().partition(" ")
    assert named, done.stderr
    return int(number), named


def test_writes_through_links(tmp_path: Path) -> None:
    file, link = tmp_path / "file.txt", tmp_path / "link.txt"
    file.write_text("old")
    link.symlink_to(file)
    with atomic_path(link) as temporary:
        Path(temporary).write_text("new")
    assert link.is_symlink() and file.read_text() == "new"


def test_writes_through_dangling_links(tmp_path: Path) -> None:
    (tmp_path / "link.txt").symlink_to(tmp_path / "file.txt")
    with atomic_path(tmp_path / "link.txt") as temporary:
        Path(temporary).write_text("new")
    assert (tmp_path / "file.txt").read_text() == "new"


def test_model_can_be_written_over_itself(tmp_path: Path) -> None:
    path, link = tmp_path / "model.gguf", tmp_path / "link.gguf"
    with GGUFContext.empty() as file:
        file.set("general.architecture", "llama")
        file.write(path)
    link.symlink_to(path)
    with GGUFContext.from_file(path) as file:
        file.set("general.name", "again")
        file.write(link)
        assert file.get("general.name") == "again"
    with GGUFContext.from_file(link) as file:
        assert file.get("general.name") == "again"


def test_rejects_devices_and_pipes(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path(os.devnull)):
        with pytest.raises(ValueError, match="is a device or a pipe"):
            final_path(path)
    with pytest.raises(IsADirectoryError):
        final_path(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        final_path(tmp_path / "none" / "file")


def test_image_can_be_saved_to_a_device(tmp_path: Path) -> None:
    import numpy as np

    image = GeneratedImage.from_pixels(np.zeros((8, 8, 3), np.uint8), "a")
    image.save(os.devnull, format="PNG")
    assert not Path(os.devnull).is_file()
    with pytest.raises(ValueError, match="unknown file extension"):
        image.save(tmp_path / "image.unknown")
