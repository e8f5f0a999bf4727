"""Write the vocabularies of stable-diffusion.cpp in a compact form, for thirdparty/sd_vocabulary.cpp.

    python scripts/sd_vocabulary.py thirdparty/stable-diffusion.cpp/src/tokenizers/vocab build/engines/vocabulary

Upstream keeps them as C arrays of hexadecimal numbers: 130 MB of source, 36 seconds to compile, 19 MB in the library.
The files written here have 7 MB. sd_vocabulary.cpp restores what upstream's functions return: the same bytes of the
merges, and JSON of the same content, as far as the tokenizers read it.
"""

from __future__ import annotations

import json
import re
import struct
import sys
from pathlib import Path
from typing import Any

ARRAY = re.compile(r"(\w+)\[\]\s*=\s*\{([^}]*)\}")
HEX = str.maketrans({character: None for character in " \n\r\t,"})


def arrays(folder: Path) -> dict[str, bytes]:
    """Return the content of each array in the headers of `folder`, by the name of the array."""
    found = {}
    for header in sorted(folder.glob("*.hpp")):
        for name, numbers in ARRAY.findall(header.read_text()):
            found[name] = bytes.fromhex(numbers.translate(HEX).replace("0x", ""))
    return found


def lines(words: list[str]) -> bytes:
    """Return `words`, one per line."""
    if any("\n" in word for word in words):
        sys.exit("sd_vocabulary: a token contains a line break; change the format")
    return "\n".join(words).encode()


def merges_of(tokens: list[str]) -> str:
    """Return the merges of a vocabulary: for each token all pairs of tokens that form it, by their numbers."""
    numbers = {token: number for number, token in enumerate(tokens)}
    found = []
    for token in tokens:
        pairs = ((token[:i], token[i:]) for i in range(1, len(token)))
        known = [pair for pair in pairs if pair[0] in numbers and pair[1] in numbers]
        known.sort(key=lambda pair: [numbers[part] for part in pair])
        found += [f"{left} {right}\n" for left, right in known]
    return "".join(found)


def unigram(raw: bytes) -> tuple[bytes, bytes]:
    """Return the beginning of the JSON with the tokens, and the scores: differences of their bits, in 7-bit groups."""
    data: dict[str, Any] = json.loads(raw)
    head = {"pre_tokenizer": data["pre_tokenizer"], "model": {"unk_id": data["model"]["unk_id"], "vocab": []}}
    begin = json.dumps(head, ensure_ascii=False, separators=(",", ":")).removesuffix("]}}")
    coded, before = bytearray(), 0
    for _, score in data["model"]["vocab"]:
        (bits,) = struct.unpack("<i", struct.pack("<f", score))
        difference, before = bits - before, bits
        number = difference << 1 if difference >= 0 else ~(difference << 1)
        while number > 127:
            coded.append(number & 127 | 128)
            number >>= 7
        coded.append(number)
    return lines([begin, *(token for token, _ in data["model"]["vocab"])]), bytes(coded)


def main(source: Path, destination: Path) -> None:
    """Read the headers in `source`, write the files to `destination`."""
    found = arrays(source)
    mistral: dict[str, int] = json.loads(found["mistral_vocab_json_utf8_c_str"])
    tokens = sorted(mistral, key=mistral.__getitem__)
    if sorted(mistral.values()) != list(range(len(tokens))):
        sys.exit("sd_vocabulary: the numbers of Mistral's tokens have gaps; change the format")
    if merges_of(tokens).encode() != found["mistral_merges_utf8_c_str"]:
        sys.exit("sd_vocabulary: Mistral's merges do not follow from its tokens any more; change the format")
    t5, t5_scores = unigram(found["t5_tokenizer_json_str"])
    umt5, umt5_scores = unigram(found["umt5_tokenizer_json_str"])
    files = {
        "clip_merges": found["clip_merges_utf8_c_str"],
        "qwen2_merges": found["qwen2_merges_utf8_c_str"],
        "mistral_tokens": lines(tokens),
        "t5_tokens": t5,
        "t5_scores": t5_scores,
        "umt5_tokens": umt5,
        "umt5_scores": umt5_scores,
    }
    destination.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (destination / name).write_bytes(content)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
