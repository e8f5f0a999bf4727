"""The prompt cache on disk: later processes, limits, damage, other models and options."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from language.conftest import CHAT_MODEL
from server.running import running_server

from cyllama import LLM
from cyllama.llama import prompt_cache as module
from cyllama.llama.prompt_cache import PromptCache, cache_path, fingerprint

TINY = "tiny-random-llama"
STORY = "Once upon a time there was a king who had three sons and a castle by the sea. " * 20
OTHER = "The weather in the mountains was cold, and nobody went there before the spring. " * 20
THIRD = "A list of all ships that came to the harbour in that year, with their captains. " * 20
MARK = bytes(range(32))


def states(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.state"))


def evaluated(folder: Path, prompt: str = STORY, **settings: Any) -> int:
    """Load the tiny model, complete a prompt, and return the number of its tokens that were computed."""
    options = {"n_ctx": 4096, "n_parallel": 2, "prompt_cache": folder, **settings}
    with LLM(TINY, **options) as llm:
        return int(llm.complete(prompt, max_tokens=4, ignore_eos=True).timings.prompt_n)


def test_second_process_does_not_read_a_prompt_anew(tmp_path: Path) -> None:
    code = """
import json, sys
from cyllama import LLM
with LLM(sys.argv[1], n_ctx=1024, n_parallel=2, prompt_cache=sys.argv[2]) as llm:
    messages = [{"role": "user", "content": sys.argv[3] + "How many sons?"}]
    chat = llm.chat(messages, temperature=0, max_tokens=8)
    stream = llm.chat([*messages, dict(chat.message), {"role": "user", "content": "Why?"}], max_tokens=4, stream=True)
    print(json.dumps([dict(chat.timings), dict(stream.result().timings)]))
"""
    found = []
    for _ in range(2):
        command = [sys.executable, "-c", code, CHAT_MODEL, str(tmp_path / "cache"), STORY]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        found.append(json.loads(done.stdout))
    (first, _), (second, turn) = found
    assert first["cache_n"] == 0 and first["prompt_n"] > 300
    assert second["prompt_n"] <= 2 and second["cache_n"] + second["prompt_n"] == first["prompt_n"]
    assert turn["prompt_n"] < 40


def test_states_are_written_when_the_process_ends_without_closing(tmp_path: Path) -> None:
    code = """
import sys
from cyllama import LLM
llm = LLM(sys.argv[1], n_ctx=4096, n_parallel=2, prompt_cache=sys.argv[2])
llm.complete(sys.argv[3], max_tokens=4)
"""
    subprocess.run([sys.executable, "-c", code, TINY, str(tmp_path), STORY], timeout=300, check=True)
    assert len(states(tmp_path)) == 1 and evaluated(tmp_path) <= 2


def test_state_is_found_by_the_start_of_the_prompt(tmp_path: Path) -> None:
    whole = evaluated(tmp_path)
    assert whole > 300 and len(states(tmp_path)) == 1
    assert evaluated(tmp_path, STORY + "The end.") < 20
    assert evaluated(tmp_path, STORY[: len(STORY) // 2]) < 20
    assert evaluated(tmp_path, OTHER) > 300


def test_prompts_that_left_their_slots_are_kept(tmp_path: Path) -> None:
    with LLM(TINY, n_ctx=4096, n_parallel=2, prompt_cache=tmp_path) as llm:
        for prompt in (STORY, OTHER, THIRD):
            llm.complete(prompt, max_tokens=4)
    assert len(states(tmp_path)) == 3
    with LLM(TINY, n_ctx=4096, n_parallel=2, prompt_cache=tmp_path) as llm:
        counts = [llm.complete(prompt, max_tokens=1).timings.prompt_n for prompt in (STORY, OTHER, THIRD)]
    assert max(counts) <= 2


def test_response_is_that_of_a_model_without_a_cache(tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_tokens": 12, "temperature": 0, "ignore_eos": True}
    with LLM(TINY, n_ctx=4096, n_parallel=1) as llm:
        llm.complete(STORY, **options)
        expected = llm.complete(STORY, **options).text  # with the prompt cache in memory
    evaluated(tmp_path, n_parallel=1)
    with LLM(TINY, n_ctx=4096, n_parallel=1, prompt_cache=tmp_path) as llm:
        found = llm.complete(STORY, **options)
    assert found.text == expected and found.timings.prompt_n <= 2


@pytest.mark.parametrize("settings", [{"n_ctx": 2048}, {"cache_type_k": "q8_0"}, {"rope_freq_scale": 0.5}])
def test_other_options_do_not_use_a_state(tmp_path: Path, settings: dict[str, Any]) -> None:
    whole = evaluated(tmp_path)
    assert evaluated(tmp_path, **settings) == whole
    assert evaluated(tmp_path, n_threads=1) <= 2  # the number of threads does not change the state


def test_another_model_file_does_not_use_a_state(tmp_path: Path) -> None:
    from cyllama import models

    whole = evaluated(tmp_path)
    copy = tmp_path / "model.gguf"
    copy.write_bytes(models.get(TINY).read_bytes())
    with LLM(copy, n_ctx=4096, n_parallel=2, prompt_cache=tmp_path) as llm:
        assert llm.complete(STORY, max_tokens=4).timings.prompt_n == whole


def damage_start(path: Path) -> None:
    change(path, 40)


def damage_middle(path: Path) -> None:
    change(path, path.stat().st_size // 2)


def damage_tokens(path: Path) -> None:
    change(path, path.stat().st_size - 200)


def damage_code(path: Path) -> None:
    change(path, path.stat().st_size - 1)


def damage_number_of_tokens(path: Path) -> None:
    change(path, path.stat().st_size - 66)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_text(path: Path) -> None:
    path.write_text("not a state" * 100)


def cut_the_middle(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:5000] + data[-5000:])


def lose_the_key(path: Path) -> None:
    (path.parent / "key").unlink()


def replace_by_a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def change(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x55
    path.write_bytes(data)


DAMAGES = [
    damage_start,
    damage_middle,
    damage_tokens,
    damage_code,
    damage_number_of_tokens,
    truncate,
    empty,
    replace_by_text,
    cut_the_middle,
    lose_the_key,
    replace_by_a_link,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_states_are_removed(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    whole = evaluated(tmp_path)
    (path,) = states(tmp_path)
    damage(path)
    with LLM(TINY, n_ctx=4096, n_parallel=2, prompt_cache=tmp_path) as llm:
        assert llm.complete(STORY, max_tokens=4).timings.prompt_n == whole
        assert not path.exists() and not path.is_symlink()
    assert evaluated(tmp_path) <= 2  # a new state replaces it


def test_folders_and_unreadable_names_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "folder.state").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    evaluated(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert evaluated(tmp_path) <= 2


def test_no_state_of_other_weights_is_written(tmp_path: Path) -> None:
    with LLM(TINY, n_ctx=4096, n_parallel=1, prompt_cache=tmp_path) as llm:
        llm.set_loras({})
        llm.complete(STORY, max_tokens=4)
    assert not states(tmp_path)


def test_least_recently_used_states_are_removed(tmp_path: Path) -> None:
    evaluated(tmp_path, STORY)
    (first,) = states(tmp_path)
    size = first.stat().st_size
    evaluated(tmp_path, OTHER, prompt_cache_bytes=3 * size)
    os.utime(first, (1, 1))
    assert evaluated(tmp_path, STORY, prompt_cache_bytes=3 * size) <= 2  # marks it as used
    second = next(path for path in states(tmp_path) if path != first)
    os.utime(second, (1, 1))
    evaluated(tmp_path, THIRD, prompt_cache_bytes=int(2.5 * size))
    assert len(states(tmp_path)) == 2 and first in states(tmp_path) and second not in states(tmp_path)
    evaluated(tmp_path / "small", STORY, prompt_cache_bytes=1000)
    assert not states(tmp_path / "small")


def test_short_prompts_are_not_kept(tmp_path: Path) -> None:
    evaluated(tmp_path, "Hello")
    assert not states(tmp_path)


def test_nothing_else_stays_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    evaluated(folder)
    assert sorted(path.suffix for path in folder.iterdir()) == ["", ".state"]
    assert (folder / "key").stat().st_mode & 0o777 == 0o600
    assert states(folder)[0].stat().st_mode & 0o777 == 0o600


def test_models_in_several_threads_share_a_folder(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def work(prompt: str) -> None:
        try:
            for _ in range(2):
                evaluated(tmp_path, prompt, prompt_cache_bytes=100 << 20)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(prompt,)) for prompt in (STORY, OTHER, STORY)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert evaluated(tmp_path, STORY) <= 2 and evaluated(tmp_path, OTHER) <= 2


def test_cancelled_and_unread_requests_do_not_prevent_closing(tmp_path: Path) -> None:
    with LLM(TINY, n_ctx=4096, n_parallel=2, prompt_cache=tmp_path, ctx_shift=True) as llm:
        stream = llm.complete(STORY, max_tokens=100_000, ignore_eos=True, stream=True)
        assert next(stream).text is not None
        llm.complete(OTHER, max_tokens=2)
    assert len(states(tmp_path)) >= 1


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"prompt_cache": 1}, TypeError),
        ({"prompt_cache": ""}, TypeError),
        ({"prompt_cache": None}, TypeError),
        ({"prompt_cache_bytes": 0}, ValueError),
        ({"prompt_cache": False, "prompt_cache_bytes": 1 << 30}, ValueError),
        ({"prompt_cache_bytes": "8 GiB"}, TypeError),
        ({"embedding": True}, ValueError),
        ({"reranking": True}, ValueError),
        ({"draft_model": TINY}, ValueError),
        ({"options": {"spec-type": "draft-mtp"}}, ValueError),
    ],
)
def test_rejects_options_without_effect(tmp_path: Path, settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="prompt_cache"):
        LLM(TINY, **{"prompt_cache": tmp_path, **settings})


def test_true_is_a_folder_in_the_cache_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYLLAMA_CACHE", str(tmp_path))
    assert cache_path(True) == tmp_path / "prompts"


def test_folder_of_all_users_is_rejected(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(PermissionError, match="prompt_cache"):
        PromptCache(tmp_path, MARK)


def test_folders_of_killed_processes_are_removed(tmp_path: Path) -> None:
    old, new = tmp_path / "working-1-a", tmp_path / "working-1-b"
    for folder in (old, new):
        folder.mkdir()
        (folder / "slot-1").write_bytes(b"x")
    os.utime(old, (1, 1))
    PromptCache(tmp_path, MARK)
    assert not old.exists() and new.exists()


def state_file(path: Path, tokens: list[int], size: int = 1000) -> Path:
    """Write a file with the head of a state of the engine."""
    head = module.STATE_HEAD.pack(module.STATE_MAGIC, 2, len(tokens) + 4, -1, 1, len(tokens))
    path.write_bytes(head + np.array(tokens, np.int32).tobytes() + bytes(size))
    return path


def counted(*lengths: int) -> list[int]:
    """Return tokens: 1, 1, 1, ..., 2, 2, 2, ..."""
    return [number for number, length in enumerate(lengths) for _ in range(length)]


def test_longest_common_start_wins(tmp_path: Path) -> None:
    cache = PromptCache(tmp_path, MARK)
    for tokens in (counted(100, 100, 50), counted(100, 20, 100), [7] * 100):
        assert cache.store(state_file(tmp_path / "new", tokens))
    found = cache.find(counted(100, 60, 10))
    assert found is not None and found[0].tokens.tolist() == counted(100, 100, 50) and found[1] == 160
    assert cache.find([5, 5]) is None
    assert PromptCache(tmp_path, bytes(32)).find(counted(100)) is None  # another model
    with_media = state_file(tmp_path / "new", [1, *([-1] * 100)])
    position = module.STATE_HEAD.size + 4 * 101
    with_media.write_bytes(with_media.read_bytes()[:position] + b"\x01" + bytes(999))
    assert not cache.store(with_media)


def test_states_that_differ_in_the_last_tokens_are_stored_once(tmp_path: Path) -> None:
    cache = PromptCache(tmp_path, MARK)
    stored = [
        cache.store(state_file(tmp_path / "new", tokens))
        for tokens in (counted(100, 10), counted(100, 0, 20), counted(90), counted(100, 0, 50), counted(100, 40, 1))
    ]
    assert stored == [True, False, False, True, True]
    assert sorted(len(entry.tokens) for entry in cache.entries()) == [141, 150]


def test_fingerprint_depends_on_files_options_and_versions(tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.write_bytes(b"a")
    marks = {fingerprint([file], ["-c", "1"], {"v": "1"}), fingerprint([file], ["-c", "2"], {"v": "1"})}
    marks.add(fingerprint([file], ["-c", "1"], {"v": "2"}))
    marks.add(fingerprint([file, file], ["-c", "1"], {"v": "1"}))
    file.write_bytes(b"b")
    marks.add(fingerprint([file], ["-c", "1"], {"v": "1"}))
    assert len(marks) == 5


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "models.toml"
    file.write_text(
        f'[models.tiny]\nmodel = "{TINY}"\nn_ctx = 4096\nn_parallel = 2\nprompt_cache = "cache"\n'
        'prompt_cache_bytes = "1 GiB"\n'
    )
    yield file


def test_server_keeps_states_when_it_unloads_and_ends(config: Path) -> None:
    def cached() -> int:
        body = {"prompt": STORY, "max_tokens": 2}
        return int(server.post("/v1/completions", body).json()["timings"]["cache_n"])

    with running_server("--config", config) as server:
        assert cached() == 0
        assert server.post("/models/unload", {"model": "tiny"}).status_code == 200
        assert len(states(config.parent / "cache")) == 1
        assert cached() > 300
        assert server.stop() == 0
    with running_server("--config", config) as server:
        assert cached() > 300
