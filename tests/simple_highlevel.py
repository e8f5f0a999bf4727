"""What simple.py does, with one call. Run it as ``cd tests && python3 simple_highlevel.py``."""

import sys

import cyllama


def main(prompt: str = "The capital of France is", n_predict: int = 32) -> None:
    model = cyllama.models.get("smollm2-135m-instruct")
    result = cyllama.llama.simple(model, prompt, n_predict)
    print(prompt + result.text)
    print(f"\ndecoded {result.n_decoded} tokens in {result.seconds:.2f} s, speed: {result.tokens_per_second:.2f} t/s")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
