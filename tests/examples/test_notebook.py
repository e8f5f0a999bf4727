"""The notebook of examples/ runs, and its results display themselves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from data.sounds import JFK
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "notebook.ipynb"
CELLS = nbformat.read(NOTEBOOK, as_version=4).cells
DISPLAYED = {number: cell.metadata.mime for number, cell in enumerate(CELLS) if "mime" in cell.metadata}


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[nbformat.NotebookNode]:
    folder = tmp_path_factory.mktemp("notebook")
    shutil.copy(JFK, folder / f"talk{JFK.suffix}")
    book = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(book, timeout=600, startup_timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return book


def test_notebook_is_stored_without_outputs() -> None:
    assert [cell.outputs for cell in CELLS if cell.cell_type == "code" and cell.outputs] == []
    assert len(DISPLAYED) == 6


@pytest.mark.parametrize("number", DISPLAYED)
def test_cell_displays_its_result(executed: nbformat.NotebookNode, number: int) -> None:
    outputs = executed.cells[number].outputs
    mime = DISPLAYED[number]
    if mime == "stream":
        assert "ask not what your country can do for you" in "".join(output.text for output in outputs)
    else:
        assert mime in outputs[-1].data
