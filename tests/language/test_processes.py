"""Forks and pickles: a model belongs to the process that loaded it."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from cyllama import LLM

FORKED = """
import os, sys, warnings
from cyllama import LLM
from cyllama.errors import UnsupportedError
warnings.simplefilter("ignore", DeprecationWarning)
llm = LLM("tiny-random-llama", n_ctx=256)
stream = llm.complete("a", max_tokens=200, ignore_eos=True, stream=True)
next(stream)
child = os.fork()
if child == 0:
    for call in (lambda: llm.complete("a", max_tokens=1), lambda: next(stream), lambda: llm.tokenize("a")):
        try:
            call()
        except UnsupportedError as error:
            assert "forked" in str(error)
        else:
            os._exit(3)
    del stream
    with LLM("tiny-random-llama", n_ctx=128) as other:
        other.complete("a", max_tokens=1)
    sys.exit(0)  # with the exit handlers
_, status = os.waitpid(child, 0)
assert status == 0, status
stream.close()
llm.complete("a", max_tokens=2, id_slot=0)
llm.save_state("state")
print("parent", llm.complete("a", max_tokens=2, ignore_eos=True).usage.completion_tokens)
"""


def test_forked_process_rejects_the_model(tmp_path: object) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=120, check=False, cwd=str(tmp_path)
    )
    assert done.returncode == 0 and done.stdout == "parent 2\n", done.stderr


def test_rejects_pickling() -> None:
    with LLM("tiny-random-llama", n_ctx=128) as llm, pytest.raises(TypeError, match="load it again"):
        pickle.dumps(llm)
