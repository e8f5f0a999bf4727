"""Copies of model files with other metadata."""

from __future__ import annotations

from pathlib import Path

from cyllama.cli import main

__all__ = ["with_template"]


def with_template(model: str, template: str, folder: Path) -> Path:
    """Return a copy of a model of the registry that carries a chat template."""
    path = folder / "template.gguf"
    assert main(["gguf", "set", model, "tokenizer.chat_template", template, "--type", "str", "-o", str(path)]) == 0
    return path
