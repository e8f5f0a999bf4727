"""`/v1/files` and `/v1/batches` with hostile files, folders and fields."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from cyllama.cli import main
from cyllama.server import Limits
from cyllama.server.batches.store import BatchStore


def test_a_store_deletes_only_files_that_it_made(tmp_path: Path) -> None:
    """Files of the user, folders and links stay; what an interrupted upload has left is deleted."""
    mine = {f"{part}/{name}" for part in ("files", "work") for name in ("notes.txt", "file-1", "batch_1.jsonl")}
    for name in mine:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    part = f"file-{'0' * 24}.part"
    (tmp_path / "work" / "sub").mkdir()
    (tmp_path / "files" / f"file-{'1' * 24}.part").mkdir()
    (tmp_path / "files" / f"file-{'2' * 24}.part").symlink_to(tmp_path / "files" / "notes.txt")
    (tmp_path / "files" / part).write_text("a part")
    BatchStore(tmp_path, Limits()).close()
    assert all((tmp_path / name).read_text() == "mine" for name in mine)
    assert (tmp_path / "work" / "sub").is_dir() and not (tmp_path / "files" / part).exists()


def test_uploads_outlive_their_database(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = BatchStore(tmp_path, Limits())
    file = store.add_file("", "a", "batch", io.BytesIO(b"precious"))
    work = store.work_path(store.create_batch("", file.id, "/v1/completions", None, None).id)
    work.write_bytes(b"{}\n")
    store.close()
    for path in tmp_path.glob("batches.sqlite*"):
        path.unlink()
    store = BatchStore(tmp_path, Limits())
    store.close()
    assert store.path(file.id).read_bytes() == b"precious" and work.exists()
    assert file.id in caplog.text and work.name in caplog.text


def test_a_store_rejects_linked_folders(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a").write_text("mine")
    for name in ("files", "work"):
        folder = tmp_path / f"store-{name}"
        folder.mkdir()
        (folder / name).symlink_to(tmp_path / "other")
        with pytest.raises(ValueError, match="symbolic link"):
            BatchStore(folder, Limits())
    assert (tmp_path / "other" / "a").exists()


def test_a_damaged_database_is_an_error_of_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    BatchStore(tmp_path, Limits()).close()
    path = tmp_path / "batches.sqlite"
    whole = path.read_bytes()
    for content in (b"no database" * 1000, whole[:2000], whole[:4096] + b"\xff" * (len(whole) - 4096)):
        path.write_bytes(content)
        assert main(["serve", "-m", "tiny-random-llama", "--batch-folder", str(tmp_path), "--port", "0"]) == 1
        lines = [line for line in capsys.readouterr().err.splitlines() if "batches.sqlite" in line]
        assert len(lines) == 1 and str(path) in lines[0]
        assert path.read_bytes()[4096:] == content[4096:]
