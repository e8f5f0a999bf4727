"""Stop what takes too long: from another thread, or because nobody wants the answer any more."""

import threading

from cyllama import LLM
from cyllama.errors import CancelledError

with LLM("smollm2-135m-instruct", n_ctx=2048) as llm:
    stop = threading.Event()
    timer = threading.Timer(0.5, stop.set)
    timer.start()
    try:
        llm.chat("Write a very long story.", max_tokens=2000, ignore_eos=True, cancel=stop)
    except CancelledError as error:
        print("stopped:", error)
    with llm.chat("Write a very long story.", max_tokens=2000, stream=True) as parts:
        for part in parts:
            if part.text:
                print("begun:", part.text)
                break
    print("next:", llm.chat("What is the capital of France? Answer with one word.", max_tokens=16, temperature=0).text)
