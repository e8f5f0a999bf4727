"""Callables for batches: the kinds of batches, errors in rows, usage, one model in a process."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pandas
import pyarrow
import pytest
from data.sounds import JFK
from PIL import Image

from cyllama import models
from cyllama.batch import BatchCall, Chat, Complete, Describe, Embed, GenerateImages, Rerank, Transcribe
from cyllama.llama import LLM
from cyllama.pipelines import default_pool

SETTINGS = {"n_ctx": 1024, "n_parallel": 2, "n_threads": 1}
COLUMNS = ["response", "error", "finish_reason", "prompt_tokens", "completion_tokens"]


@pytest.fixture(scope="module", autouse=True)
def _pool() -> Any:
    yield
    default_pool().unload()


@pytest.fixture(scope="module")
def chat() -> Chat:
    return Chat("tiny-random-llama", settings=SETTINGS, max_tokens=4, temperature=0, seed=1)


def columns_of(batch: Any) -> dict[str, list[Any]]:
    """Return a batch of any kind as lists."""
    if isinstance(batch, dict):
        return {name: list(values) for name, values in batch.items()}
    return batch.to_dict("list") if isinstance(batch, pandas.DataFrame) else batch.to_pydict()


CHATS = ["first", "second", "third"]
BATCHES = {
    "lists": {"messages": CHATS},
    "arrays": {"messages": np.array(CHATS)},
    "DataFrame": pandas.DataFrame({"messages": CHATS}, index=[7, 3, 5]),
    "Table": pyarrow.table({"messages": CHATS}),
    "RecordBatch": pyarrow.RecordBatch.from_pydict({"messages": CHATS}),
}


@pytest.mark.parametrize("kind", BATCHES)
def test_adds_columns_to_a_batch_of_each_kind(chat: Chat, kind: str) -> None:
    batch = BATCHES[kind]
    found = chat(batch)
    assert type(found) is type(batch)
    columns = columns_of(found)
    assert list(columns) == ["messages", *COLUMNS] and list(columns_of(batch)) == ["messages"]
    assert columns["messages"] == CHATS
    assert all(isinstance(text, str) and text for text in columns["response"])
    assert not any(isinstance(error, str) for error in columns["error"])
    assert columns["completion_tokens"] == [4, 4, 4] and min(columns["prompt_tokens"]) > 4
    assert columns["finish_reason"] == ["length"] * 3
    if kind == "lists":
        assert all(isinstance(values, list) for values in found.values())
    elif kind == "arrays":
        assert all(isinstance(values, np.ndarray) for values in found.values())
    elif kind == "DataFrame":
        assert list(found.index) == [7, 3, 5]


def test_an_iterator_of_frames_is_computed_frame_by_frame(chat: Chat) -> None:
    """As PySpark's mapInPandas and Dask's bags call it."""
    read = []

    def frames() -> Any:
        for i in range(3):
            read.append(i)
            yield pandas.DataFrame({"messages": [f"row {i}"]})

    found = chat(frames())
    assert read == []
    first = next(found)
    assert read == [0] and first["completion_tokens"].tolist() == [4]
    assert len(list(found)) == 2


def test_an_empty_batch_gets_the_columns_without_loading_the_model() -> None:
    call = Chat("/no/such/model.gguf")
    found = call(pandas.DataFrame({"messages": []}))
    assert list(found.columns) == ["messages", *COLUMNS]
    assert found["prompt_tokens"].dtype == np.int64
    with pytest.raises(FileNotFoundError):
        call({"messages": ["a"]})


def test_a_bad_row_does_not_fail_the_batch(chat: Chat) -> None:
    long = "word " * 4000
    found = chat({"messages": ["good", None, [{"role": "nobody", "content": "x"}], long, "good"]})
    assert [text is None for text in found["response"]] == [False, True, True, True, False]
    kinds = [None if error is None else error.split(":")[0] for error in found["error"]]
    assert kinds == [None, "TypeError", "ValueError", "ContextFullError", None]
    assert found["completion_tokens"] == [4, 0, 0, 0, 4]


def test_fields_of_arrow_structs_that_are_missing_in_a_row_are_left_out(chat: Chat) -> None:
    rows = [[{"role": "user", "content": "a"}], [{"role": "assistant", "content": "b", "reasoning_content": "c"}]]
    table = pyarrow.table({"messages": rows})
    assert table.to_pylist()[0]["messages"][0]["reasoning_content"] is None
    assert chat(table).column("error").to_pylist() == [None, None]


def test_results_as_json_have_the_whole_response() -> None:
    call = Chat("tiny-random-llama", settings=SETTINGS, max_tokens=2, n=2, result="json", logprobs=True, top_logprobs=2)
    found = call({"messages": ["hello"]})
    response = json.loads(found["response"][0])
    assert len(response["choices"]) == 2 and response["choices"][0]["logprobs"]["content"]
    with pytest.raises(ValueError, match="n is 2"):
        Chat("tiny-random-llama", n=2)


def test_calls_can_be_chained_with_other_names() -> None:
    chat = Chat("tiny-random-llama", column="text", output="answer", prefix="answer_", settings=SETTINGS, max_tokens=1)
    complete = Complete("tiny-random-llama", settings=SETTINGS, max_tokens=2)
    found = chat(complete({"prompt": ["Once"]}))
    assert found["error"] == found["answer_error"] == [None]
    assert found["completion_tokens"] == [2] and found["answer_completion_tokens"] == [1]
    with pytest.raises(ValueError, match="'error'"):
        Complete("tiny-random-llama", settings=SETTINGS, output="other", max_tokens=1)(found)


def test_rejects_batches_and_options_by_name(chat: Chat) -> None:
    for batch, kind, words in (
        ({"text": ["a"]}, ValueError, "'messages'.*text"),
        ({"messages": ["a"], "id": [1, 2]}, ValueError, "lengths"),
        (["a"], TypeError, "list"),
    ):
        with pytest.raises(kind, match=words):
            chat(batch)
    for make, kind, words in (
        (lambda: Chat("m", max_tokn=1), TypeError, "max_tokens"),
        (lambda: Complete("m", max_tokn=1), TypeError, "max_tokens"),
        (lambda: Transcribe("m", beem_size=1), TypeError, "beam_size"),
        (lambda: GenerateImages("m", stepz=1), TypeError, "steps"),
        (lambda: GenerateImages("m", batch_size=2), ValueError, "batch_size"),
        (lambda: GenerateImages("m", parallel=2), ValueError, "parallel"),
        (lambda: Describe("m", media="video"), ValueError, "video"),
        (lambda: Chat("m", result="yaml"), ValueError, "yaml"),
        (lambda: Chat("m", parallel=0), ValueError, "parallel is 0"),
        (lambda: Chat("m", output="error"), ValueError, "error"),
        (lambda: Chat("m", column=""), ValueError, "column"),
    ):
        with pytest.raises(kind, match=words):
            make()


def test_a_pickled_call_has_the_configuration_and_loads_its_own_model(chat: Chat) -> None:
    chat({"messages": ["a"]})
    data = pickle.dumps(chat)
    assert len(data) < 1000
    code = (
        "import pickle, sys; call = pickle.loads(bytes.fromhex(sys.argv[1])); "
        "print(call({'messages': ['a']})['completion_tokens'])"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    command = [sys.executable, "-c", code, data.hex()]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[4]"


def test_the_model_is_loaded_once_and_shared_by_equal_calls(chat: Chat) -> None:
    other = pickle.loads(pickle.dumps(chat))
    for call in (chat, other, chat):
        call({"messages": ["a", "b"]})
    name = [model.name for model in default_pool().loaded if model.settings == SETTINGS and model.kind == "llm"]
    assert name == ["tiny-random-llama"]


def test_rows_use_the_slots_of_the_engine() -> None:
    """Three rows of a model with three slots are computed at the same time."""
    settings = {"n_ctx": 2048, "n_parallel": 3, "n_threads": 1}
    busy = []

    class Watched(Complete):
        def _row(self, model: Any, cells: Any, cancel: Any) -> Any:
            with model.complete(cells[0], stream=True, max_tokens=40, ignore_eos=True) as stream:
                next(stream)
                busy.append(sum(slot.is_processing for slot in model.metrics))
                for _ in stream:
                    pass
            return super()._row(model, cells, cancel)

    found = Watched("tiny-random-llama", settings=settings, max_tokens=1)({"prompt": ["a"] * 12})
    assert found["error"] == [None] * 12
    assert max(busy) == 3


def test_an_engine_that_stops_is_loaded_again_and_only_its_row_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[Any] = []
    monkeypatch.setattr(LLM, "failure", property(lambda self: "stopped" if self in stopped else None))

    class Broken(Complete):
        def _row(self, model: Any, cells: Any, cancel: Any) -> Any:
            if cells[0] == "bad":
                stopped.append(model)
                model.close()
            return super()._row(model, cells, cancel)

    call = Broken("tiny-random-llama", settings={**SETTINGS, "n_ctx": 512}, max_tokens=1)
    found = call({"prompt": ["a", "bad", "b", "c", "d"]})
    assert [error is None for error in found["error"]] == [True, False, True, True, True]
    assert len(stopped) == 2 and stopped[0] is not stopped[1]


def test_embeds_and_counts_tokens() -> None:
    found = Embed("minilm-l6")({"text": np.array(["a happy person", "a happy dog"])})
    vectors = np.array(found["embedding"].tolist())
    assert vectors.shape == (2, 384) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert found["prompt_tokens"].tolist() == [5, 5]
    longer = Embed("minilm-l6", normalize=False)(pyarrow.table({"text": ["a happy person", None]}))
    assert abs(np.linalg.norm(longer.column("embedding").to_pylist()[0]) - 1) > 0.1
    assert longer.column("embedding").to_pylist()[1] is None and "text is None" in longer.column("error").to_pylist()[1]


def test_reranks_in_the_order_of_the_documents() -> None:
    documents = ["a panda is a bear", "Paris", "bamboo"]
    call = Rerank("tiny-random-reranker", settings={"n_threads": 1})
    found = call({"query": ["panda", "panda"], "documents": [documents, "no list"]})
    with LLM("tiny-random-reranker", reranking=True, n_threads=1) as llm:
        expected = {row.index: row.relevance_score for row in llm.rerank("panda", documents)}
    assert found["scores"][0] == pytest.approx([expected[i] for i in range(3)], abs=1e-3)
    assert found["scores"][1] is None and found["error"][1].startswith("TypeError")


def test_transcribes_paths_bytes_samples_and_mappings() -> None:
    rate = 16000
    samples = np.zeros(rate, np.float32)
    cells = [str(JFK), {"bytes": JFK.read_bytes(), "path": None}, {"array": samples, "sampling_rate": rate}, "none.wav"]
    found = Transcribe("tiny.en", language="en")({"audio": cells})
    assert found["text"][0] == found["text"][1] and "ask not what your country" in found["text"][0]
    assert found["seconds"] == [11.0, 11.0, 1.0, 0.0] and found["language"][0] == "en"
    assert [error is None for error in found["error"]] == [True, True, True, False]
    segments = json.loads(Transcribe("tiny.en", result="json")({"audio": [str(JFK)]})["text"][0])["segments"]
    assert segments[-1]["end"] > 5


def test_generates_images_as_files() -> None:
    call = GenerateImages("tiny-shapes", width=128, height=128, steps=4, seed=3)
    found = call({"prompt": np.array(["a red circle", 7], object)})
    with Image.open(io.BytesIO(found["image"][0])) as image:
        assert image.format == "PNG" and image.size == (128, 128)
    assert found["seed"].tolist() == [3, 0] and found["image"][1] is None and "prompt is 7" in found["error"][1]


def test_describes_images_with_the_prompt_of_each_row() -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, "PNG")
    settings = {"n_ctx": 2048, "n_parallel": 1}
    call = Describe(
        "smollm2-135m-instruct", mmproj="vision-dinov2s", prompt_column="prompt", settings=settings, max_tokens=2
    )
    found = call({"image": [file.getvalue(), b"no image"], "prompt": ["What is this?", "What?"]})
    assert found["error"][0] is None and found["completion_tokens"][0] > 0 and found["prompt_tokens"][0] > 40
    assert found["description"][1] is None and found["error"][1]


# ------------------------------------------------------------------------------------ Ray's arguments

GIB = 1 << 30


@pytest.mark.parametrize(
    ("nodes", "cpus", "workers"),
    [
        ([{"CPU": 1, "memory": 8 * GIB}], 0.5, 1),
        ([{"CPU": 1, "memory": 8 * GIB}] * 2, 0.5, 2),
        ([{"CPU": 16, "memory": 8 * GIB}, {"CPU": 4, "memory": 8 * GIB}], 3, 2),
        ([{"CPU": 16, "memory": 8 * GIB}, {"CPU": 4, "memory": 1}], 15, 1),
        ([{"CPU": 16, "memory": 32 * GIB, "GPU": 2}], 7, 2),
    ],
)
def test_workers_leave_cpus_free_for_the_tasks_that_read(nodes: Any, cpus: float, workers: int) -> None:
    call = Chat("tiny-random-llama", settings=SETTINGS, max_tokens=3)
    found = call.ray_arguments(nodes)
    assert (found["num_cpus"], found["concurrency"]) == (cpus, workers)
    assert found["num_cpus"] * found["concurrency"] < sum(node["CPU"] for node in nodes)
    assert found["memory"] > models.get("tiny-random-llama").stat().st_size
    assert found["batch_size"] == 16
    copy: BatchCall = Chat(*found["fn_constructor_args"], **found["fn_constructor_kwargs"])
    assert copy.__dict__ == call.__dict__


def test_a_model_that_fits_on_no_node_is_an_error() -> None:
    with pytest.raises(ValueError, match="largest node has 1 MiB"):
        Chat("tiny-random-llama", settings=SETTINGS).ray_arguments([{"CPU": 4, "memory": 1 << 20}])
    with pytest.raises(ValueError, match="nodes is empty"):
        Chat("tiny-random-llama").ray_arguments([])
    assert Chat("tiny-random-llama", settings={**SETTINGS, "n_gpu_layers": 0}).ray_arguments(
        [{"CPU": 4, "GPU": 1, "memory": 8 * GIB}]
    )["num_gpus"] == 0  # fmt: skip


def test_no_package_of_data_frames_is_imported() -> None:
    code = (
        "import sys; from cyllama.batch import Chat; Chat('tiny-random-llama', max_tokens=1)({'messages': ['a']}); "
        "print({'pandas', 'pyarrow', 'ray', 'dask', 'pyspark'} & set(sys.modules))"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_ctrl_c_ends_a_batch() -> None:
    code = (
        "from cyllama.batch import Complete\n"
        "settings = {'n_ctx': 4096, 'n_parallel': 1, 'ctx_shift': True}\n"
        "call = Complete('tiny-random-llama', settings=settings, ignore_eos=True, max_tokens=-1)\n"
        "call({'prompt': []}); print('ready', flush=True)\n"
        "try: print(call({'prompt': ['a', 'b', 'c']}))\n"
        "except KeyboardInterrupt: print('interrupted', flush=True)\n"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None and program.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(timeout=1.5)
        program.send_signal(signal.SIGINT)
        assert program.stdout.read() == "interrupted\n"
