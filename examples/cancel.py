"""Cancel a call from another thread, and close a stream early."""

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
        print("cancelled:", error)
    with llm.chat("Write a very long story.", max_tokens=2000, stream=True) as stream:
        for chunk in stream:
            if chunk.text:
                print("first chunk:", chunk.text)
                break  # the with statement closes the stream, which ends the generation
    print("next:", llm.chat("What is the capital of France? Answer with one word.", max_tokens=16, temperature=0).text)
