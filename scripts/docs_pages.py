"""MkDocs hook: generate the API reference from the `__all__` lists, and pages from the files in the repository's root.

`public_names` is what the test compares with the built inventory.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # a hook is loaded by its path

from docs_griffe import without_roles
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

# Page: the modules that it describes. A package without `__all__` is described by its modules.
PAGES = {
    "cyllama": ("cyllama", "cyllama.errors"),
    "llama": ("cyllama.llama",),
    "llava": ("cyllama.llava",),
    "whisper": ("cyllama.whisper", "cyllama.whisper.wyoming"),
    "sd": ("cyllama.sd",),
    "pipelines": ("cyllama.pipelines",),
    "batch": ("cyllama.batch",),
    "models": ("cyllama.models",),
    "media": ("cyllama.media", "cyllama.media.audio", "cyllama.media.image", "cyllama.media.samples"),
    "server": ("cyllama.server",),
    "rpc": ("cyllama.rpc",),
    "compat": (
        "cyllama.compat",
        "cyllama.compat.faster_whisper",
        "cyllama.compat.openai_whisper",
        "cyllama.compat.diffusers",
    ),
    "integrations": ("cyllama.integrations", "cyllama.integrations.langchain", "cyllama.integrations.llm_plugin"),
    "log": ("cyllama.log",),
    "cli": ("cyllama.cli",),
}
ROOT_PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
LOW_LEVEL = re.compile(
    r"(Llama|llama_|common_|ggml_|string_|Common|Mtmd|mtmd_|gen_|WhisperContext|WhisperState|WhisperVad|WhisperFull"
    r"|WhisperT|WhisperG|Parakeet|bench_|SDContext|SDT|sd_|str_to_|num_|TokenDataArray|json_schema_to)"
)
HEADINGS = ("Functions", "Classes", "Exceptions", "Low-level classes", "Low-level functions", "Constants")


def public_names(module_name: str) -> list[str]:
    """Return the public names of a module: those of `__all__`, else the functions and classes that it defines."""
    module = importlib.import_module(module_name)
    if hasattr(module, "__all__"):
        return sorted(module.__all__, key=str.casefold)
    found = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module_name
    ]
    return sorted(found, key=str.casefold)


def _heading(name: str, value: Any) -> str:
    """Return the section in which a name is described."""
    if inspect.isclass(value) and issubclass(value, BaseException):
        return "Exceptions"
    low = bool(LOW_LEVEL.match(name))
    if inspect.isclass(value):
        return "Low-level classes" if low else "Classes"
    if callable(value):
        return "Low-level functions" if low else "Functions"
    return "Constants"


def homes() -> dict[str, str]:
    """Return for each public name, as `package.name`, the `package.name` under which it is described.

    A name that several packages export is described by the one that stands last in `PAGES`, or, for the names that the
    top package takes from an engine, by the engine.
    """
    described: dict[int, str] = {}
    found: dict[str, str] = {}
    for modules in [*list(PAGES.values())[1:], PAGES["cyllama"][::-1]]:
        for module_name in modules:
            module = importlib.import_module(module_name)
            for name in public_names(module_name):
                value = getattr(module, name)
                path = f"{module_name}.{name}"
                if inspect.ismodule(value):
                    found[path] = value.__name__
                elif inspect.isclass(value) or callable(value):
                    found[path] = described.setdefault(id(value), path)
                else:
                    found[path] = path
    return found


def _page(modules: tuple[str, ...]) -> str:
    where = homes()
    lines = []
    for module_name in modules:
        module = importlib.import_module(module_name)
        level = "#" if module_name == modules[0] else "##"
        lines += [f"{level} {module_name} {{#{module_name}}}", "", without_roles(inspect.getdoc(module) or ""), ""]
        elsewhere, sections = [], {heading: [] for heading in HEADINGS}
        for name in public_names(module_name):
            path = f"{module_name}.{name}"
            if inspect.ismodule(getattr(module, name)):
                elsewhere.append(f"- [`{where[path]}`]({name}.md)")
            elif where[path] != path:
                elsewhere.append(f"- [`{where[path]}`][{where[path]}]")
            else:
                sections[_heading(name, getattr(module, name))].append(f"::: {path}")
        for heading, entries in sections.items():
            if entries:
                lines += [f"## {heading}", "", *(line for entry in entries for line in (entry, "")), ""]
        if elsewhere:
            lines += ["## Names from other modules", "", *elsewhere, ""]
    return "\n".join(lines)


def _index() -> str:
    lines = ["# API reference", "", "| module | contents |", "|---|---|"]
    for page, (module_name, *_) in PAGES.items():
        text = (importlib.import_module(module_name).__doc__ or "").strip().split("\n\n")[0]
        lines.append(f"| [`{module_name}`]({page}.md) | {' '.join(text.split())} |")
    return "\n".join(lines) + "\n"


def _from_root(config: MkDocsConfig, name: str) -> str:
    """Return a page of the repository's root, with links relative to docs/."""
    text = (Path(config.config_file_path).parent / name).read_text()
    text = re.sub(r"\]\(docs/([^)]*\.md[^)]*)\)", r"](\1)", text)
    for file, page in ROOT_PAGES.items():
        text = re.sub(rf"\]\({re.escape(file)}(#[\w-]+)?\)", rf"]({page}\1)", text)
    return re.sub(r"\[([^]]*)\]\((?!https?:|[^)]*\.md\b)[^)]*\)", r"`\1`", text)  # a folder or file outside docs/


def _readme(config: MkDocsConfig) -> tuple[str, str]:
    """Return README.md as the pages index.md and quick-start.md."""
    text = _from_root(config, "README.md")
    before, quick_start, after = re.split(r"^## Quick start\n|^(?=## GPU)", text, flags=re.MULTILINE)
    quick_start = re.sub(r"^##(#+) ", r"#\1 ", quick_start, flags=re.MULTILINE)
    return before + after, f"# Quick start\n{quick_start}"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the reference, and of the files of the repository's root, to those of docs/."""
    index, quick_start = _readme(config)
    files.append(File.generated(config, "index.md", content=index))
    files.append(File.generated(config, "quick-start.md", content=quick_start))
    for file, page in ROOT_PAGES.items():
        files.append(File.generated(config, page, content=_from_root(config, file)))
    files.append(File.generated(config, "api/index.md", content=_index()))
    for page, modules in PAGES.items():
        files.append(File.generated(config, f"api/{page}.md", content=_page(modules)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point the links to files of the repository's root at their pages."""
    for file, page in ROOT_PAGES.items():
        markdown = re.sub(rf"\]\(\.\./\.\./{re.escape(file)}(#[\w-]+)?\)", rf"](../{page}\1)", markdown)
    return markdown


def on_post_page(output: str, **_: Any) -> str:
    """Name the theme's dialog for the search, as screen readers need it."""
    dialog = 'data-md-component="search" role="dialog"'
    return output.replace(dialog, f'{dialog} aria-label="Search"', 1)


on_post_template = on_post_page  # of 404.html
