"""Keep models within a memory limit: unused models are closed when another one needs the memory."""

from cyllama.pipelines import ModelPool

with ModelPool(memory=200 << 20) as pool:
    for kind, name in (("whisper", "tiny.en"), ("sd", "tiny-shapes"), ("llm", "tiny-random-llama")):
        with pool.use(kind, name):
            print([f"{model.kind} {model.name}: {model.size >> 20} MiB" for model in pool.loaded])
