"""Write the TypedDicts of keyword arguments and the tables of options, from the parameter classes (make stubs).

The TypedDicts are private modules of the package; the tables are in docs/ between ``<!-- options: CLASS -->``,
``<!-- limits -->`` for the limits of the server, or ``<!-- fields: ROUTE -->`` for the fields of a route of
AUTOMATIC1111's API, and ``<!-- end -->``.

usage: gen_option_types.py [--check]
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

from cyllama._params import Params, aliases_of
from cyllama.llama._limits import field_limits
from cyllama.sd import callbacks
from cyllama.sd.options import MODEL_OPTIONS, ImageOptions, VideoOptions
from cyllama.sd.params import SDContextParams
from cyllama.server.fields.automatic1111 import EXTRAS, IMG2IMG, SETTINGS, TXT2IMG
from cyllama.server.fields.form import FormFields
from cyllama.server.http.auth import MAX_HEADERS
from cyllama.server.http.protocol import HEAD_BYTES, MAX_SMALL_CHUNKS, SMALL_CHUNK
from cyllama.server.http.request_body import MAX_FIELDS
from cyllama.server.limits import Limits
from cyllama.whisper.options import SPECIAL_ALIASES, TranscribeOptions, VadOptions
from cyllama.whisper.params import WhisperContextParams

ROOT = Path(__file__).resolve().parent.parent
TABLES: dict[str, type[Params]] = {
    kind.__name__: kind for kind in (ImageOptions, VideoOptions, SDContextParams, TranscribeOptions, VadOptions)
}
HEAD = (
    '"""Keyword arguments as TypedDicts; written by scripts/gen_option_types.py."""\n\n'
    "from __future__ import annotations\n\n"
)
# Where the names in annotations come from.
IMPORTS = {
    "os": "import os",
    "Callable": "from collections.abc import {}",
    "Iterable": "from collections.abc import {}",
    "Mapping": "from collections.abc import {}",
    "Sequence": "from collections.abc import {}",
    "Any": "from typing import {}",
    "TypedDict": "from typing import {}",
    "Cancel": "from cyllama._cancel import {}",
    "Clips": "from cyllama.media.audio import {}",
    "LoraList": "from cyllama.sd.options import {}",
    **dict.fromkeys(
        ("CacheParams", "Embedding", "HiresParams", "Path", "PhotoMakerParams", "SDTilingParams"),
        "from cyllama.sd.params import {}",
    ),
    "VadOptions": "from cyllama.whisper.options import {}",
}


def annotations(kind: type[Params]) -> dict[str, str]:
    """Return the annotations of the options of a class, under all of their names."""
    found = {name: str(field.type) for name, field in kind.__dataclass_fields__.items()}
    return found | {alias: found[name] for alias, name in aliases_of(kind).items()}


def hooks() -> dict[str, str]:
    """Return the annotations of the callbacks."""
    parameters = inspect.signature(callbacks.Hooks.__init__).parameters
    found = {name: str(value.annotation) for name, value in parameters.items() if name != "self"}
    return found | {alias: found[name] for alias, name in callbacks.ALIASES.items()}


def typed_dict(name: str, fields: dict[str, str], *bases: str) -> str:
    """Return the code of a TypedDict; its keys are optional."""
    body = [f"    {field}: {annotation}" for field, annotation in fields.items()]
    text = f"Keyword arguments: {', '.join(bases)}" if bases else "Keyword arguments"
    head = f"class {name}({', '.join(bases) or 'TypedDict'}, total=False):"
    return "\n".join([head, f'    """{text}."""', "", *body])


def module(classes: list[str]) -> str:
    """Return the code of a module with these classes."""
    code = "\n\n\n".join(classes)
    names = {name for name in IMPORTS if re.search(rf"\b{name}\b", re.sub(r'""".*?"""', "", code))}
    lines: dict[str, list[str]] = {}
    for name in sorted(names):
        lines.setdefault(IMPORTS[name], []).append(name)
    imports = [line.format(", ".join(found)) for line, found in lines.items()]
    standard = sorted(line for line in imports if "cyllama" not in line)
    own = sorted(line for line in imports if "cyllama" in line)
    public = "".join(f'    "{name}",\n' for name in sorted(re.findall(r"^class (\w+)", code, re.MULTILINE)))
    blocks = ["\n".join(sorted(standard, key=lambda line: line.startswith("from"))), "\n".join(own)]
    return HEAD + "\n\n".join(filter(None, blocks)) + f"\n\n__all__ = [\n{public}]\n\n\n{code}\n"


def sd_module() -> str:
    """Return the module of the options of stable-diffusion.cpp."""
    model = {name: str(SDContextParams.__dataclass_fields__[field].type) for name, field in MODEL_OPTIONS.items()}
    del model["model"], model["model_path"]
    model["model_path"] = "Path | None"
    model["embeddings"] = "Mapping[str, Path] | Sequence[Embedding] | None"
    start: dict[str, str] = {"init_image": "Any"}
    classes = [
        typed_dict("ModelOptionsDict", model),
        typed_dict("ImageOptionsDict", annotations(ImageOptions) | hooks()),
        typed_dict("VideoOptionsDict", annotations(VideoOptions) | hooks()),
        typed_dict("Img2ImgOptionsDict", start | {"init_images": "Any"}, "ImageOptionsDict"),
        typed_dict("InpaintOptionsDict", {"mask": "Any"}, "Img2ImgOptionsDict"),
        typed_dict("EditOptionsDict", {"image": "Any", "ref_images": "Any"}, "ImageOptionsDict"),
        typed_dict("Img2VidOptionsDict", start, "VideoOptionsDict"),
    ]
    for name in ("Image", "Img2Img", "Inpaint", "Edit", "Video", "Img2Vid"):
        call = {"Image": "Txt2Img", "Video": "Txt2Vid"}.get(name, name)
        folder = {"lora_dir": "str | os.PathLike[str] | None"}
        classes.append(typed_dict(f"{call}CallDict", folder, f"{name}OptionsDict", "ModelOptionsDict"))
    return module(classes)


def whisper_module() -> str:
    """Return the module of the options of whisper.cpp."""
    loading = annotations(WhisperContextParams)
    return module(
        [
            typed_dict("LoadOptionsDict", {name: loading[name] for name in ("use_gpu", "gpu_device", "flash_attn")}),
            typed_dict("TranscribeOptionsDict", annotations(TranscribeOptions) | SPECIAL_ALIASES),
        ]
    )


def table(kind: type[Params]) -> str:
    """Return the options of a class as a table in Markdown."""
    lines = ["| option | type | meaning |", "|---|---|---|"]
    for name, field in kind.__dataclass_fields__.items():
        names = ", ".join(f"`{other}`" for other in field.metadata["aliases"])
        kind_text = str(field.type).replace("|", r"\|")
        meaning = field.metadata["help"].replace("|", r"\|") + (f" (also {names})" if names else "")
        lines.append(f"| `{name}` | `{kind_text}` | {meaning} |")
    return "\n".join(lines)


def limits_table() -> str:
    """Return the limits of the server as a table in Markdown."""
    lines = ["| limit | default | what it limits |", "|---|---|---|"]
    for item in dataclasses.fields(Limits):
        lines.append(f"| `{item.name}` | {item.default:,} | {item.metadata['help']} |")
    fixed = {
        "headers": f"{MAX_HEADERS} headers, {HEAD_BYTES:,} bytes",
        "chunks of a body": f"{MAX_SMALL_CHUNKS:,} while their mean size is below {SMALL_CHUNK} bytes",
        "fields of a form": f"{MAX_FIELDS}",
        **field_limits(),
    }
    lines += ["", "| fixed limit of | value |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in fixed.items())])


# Routes, and the fields that another table has.
FIELDS: dict[str, tuple[FormFields, tuple[str, ...]]] = {
    "txt2img": (TXT2IMG, ()),
    "img2img": (IMG2IMG, (*TXT2IMG.by_name, *TXT2IMG.unsupported)),
    "options": (SETTINGS, ()),
    "extra-single-image": (EXTRAS, ()),
}
KEPT = ("denoising_strength",)  # fields whose meaning differs


def fields_table(route: str) -> str:
    """Return the fields of a route as a table in Markdown."""
    form, elsewhere = FIELDS[route]
    rows = {field.name: f"{'Required. ' if field.required else ''}{field.help}" for field in form.fields}
    rows |= {field.name: f"Accepted and ignored. {field.help}" for field in form.fields if field.ignored}
    for name, reason in form.unsupported.items():
        values = ", ".join(f"`{json.dumps(value)}`" for value in form.neutral.get(name, ()))
        switch = form.switches.get(name)
        accepted = f"No effect without `{switch}`. " if switch else ""
        accepted += f"Accepted: {values}. " if values else ""
        rows[name] = f"{accepted}Refused{' otherwise' if accepted else ''}: {reason}."
    lines = ["| field | effect |", "|---|---|"]
    lines += [f"| `{name}` | {text} |" for name, text in rows.items() if name not in elsewhere or name in KEPT]
    return "\n".join(lines)


def generate() -> dict[Path, str]:
    """Return the files and their content."""
    package = ROOT / "src" / "cyllama"
    files = {
        package / "sd" / "_option_types.py": sd_module(),
        package / "whisper" / "_option_types.py": whisper_module(),
    }

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}\n{table(TABLES[match[2]])}\n{match[3]}"

    def fill_limits(match: re.Match[str]) -> str:
        return f"{match[1]}\n{limits_table()}\n{match[2]}"

    def fill_fields(match: re.Match[str]) -> str:
        return f"{match[1]}\n{fields_table(match[2])}\n{match[3]}"

    for path in sorted((ROOT / "docs").rglob("*.md")):
        text = path.read_text()
        filled = re.sub(r"(<!-- options: (\w+) -->)\n.*?(<!-- end -->)", fill, text, flags=re.DOTALL)
        filled = re.sub(r"(<!-- limits -->)\n.*?(<!-- end -->)", fill_limits, filled, flags=re.DOTALL)
        filled = re.sub(r"(<!-- fields: ([\w-]+) -->)\n.*?(<!-- end -->)", fill_fields, filled, flags=re.DOTALL)
        if filled != text or "<!-- options: " in text or "<!-- limits -->" in text or "<!-- fields: " in text:
            files[path] = filled
    return files


def main(arguments: list[str]) -> Any:
    """Write the files, or check that they are current."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only check that the files are current")
    check = parser.parse_args(arguments).check
    stale = {path: text for path, text in generate().items() if not path.exists() or path.read_text() != text}
    if check:
        return f"stale, run make stubs: {', '.join(map(str, stale))}" if stale else 0
    for path, text in stale.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
