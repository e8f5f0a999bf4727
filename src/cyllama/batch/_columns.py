"""Columns of batches: dicts, DataFrames of pandas, Tables and RecordBatches of pyarrow; neither package is imported."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

__all__ = ["Column", "ColumnKind", "add_columns", "plain", "read_columns"]

ColumnKind = Literal["text", "integer", "number", "numbers", "vector", "bytes"]
EMPTY: dict[ColumnKind, object] = {"integer": 0, "number": 0.0}
"""The value of a row that failed, where it is not None."""
DTYPES: dict[ColumnKind, Any] = {"integer": np.int64, "number": np.float64}
FRAMES = {"pandas": ("DataFrame",), "pyarrow": ("Table", "RecordBatch")}


@dataclass(frozen=True)
class Column:
    """A column that a call adds.

    Attributes
    ----------
    name : str
    kind : str
    """

    name: str
    kind: ColumnKind

    @property
    def empty(self) -> object:
        """The value of a row that failed."""
        return EMPTY.get(self.kind)


def _package(batch: object) -> str | None:
    """Return the package of a batch; None for a dict of columns.

    Raises
    ------
    TypeError
        It is none of the supported kinds.
    """
    if isinstance(batch, Mapping):
        return None
    for base in type(batch).__mro__:
        package = base.__module__.partition(".")[0]
        if base.__name__ in FRAMES.get(package, ()):
            return package
    raise TypeError(
        f"batch is of the type {type(batch).__name__}, expected a dict of columns, a pandas DataFrame, a pyarrow Table "
        "or RecordBatch, or an iterator of them"
    )


def read_columns(batch: Any, names: Sequence[str]) -> list[list[object]]:
    """Return columns of a batch as lists.

    Parameters
    ----------
    batch : mapping, DataFrame, Table or RecordBatch
    names : sequence of str

    Raises
    ------
    TypeError
        The batch is of another kind.
    ValueError
        There is no such column, or columns have different lengths.
    """
    package = _package(batch)
    known = list(batch) if package is None else list(batch.columns if package == "pandas" else batch.schema.names)
    for name in names:
        if name not in known:
            raise ValueError(
                f"the batch has no column {name!r}, expected one of {', '.join(map(str, known)) or 'none'}"
            )
    if package == "pandas":
        return [batch[name].tolist() for name in names]
    if package == "pyarrow":
        return [batch.column(name).to_pylist() for name in names]
    found = [_cells(batch[name]) for name in names]
    lengths = {name: len(batch[name]) for name in known}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the columns have the lengths {lengths}, expected the same")
    return found


def _cells(column: Any) -> list[object]:
    if isinstance(column, np.ndarray) and column.ndim == 1:
        return list(column.tolist())
    return list(column)


def plain(value: Any) -> Any:
    """Return a cell with lists, dicts and Python's numbers in place of arrays, without None in dicts.

    A column of structs has all fields in each row; a field that a row does not have is None there.
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def add_columns(batch: Any, columns: Sequence[Column], values: Mapping[str, list[object]]) -> Any:
    """Return the batch with further columns; the given one is unchanged.

    Raises
    ------
    ValueError
        The batch has a column of such a name.
    """
    package = _package(batch)
    names = list(batch) if package is None else list(batch.columns if package == "pandas" else batch.schema.names)
    for column in columns:
        if column.name in names:
            raise ValueError(
                f"the batch has a column {column.name!r} already; set output=, or prefix= for the other columns"
            )
    if package == "pyarrow":
        return _add_to_arrow(batch, columns, values)
    lists = package is None and bool(names) and all(isinstance(batch[name], list) for name in names)
    new = {column.name: values[column.name] if lists else _array(column, values[column.name]) for column in columns}
    return {**batch, **new} if package is None else batch.assign(**new)


def _array(column: Column, values: list[object]) -> Any:
    if column.kind in DTYPES:
        return np.array(values, DTYPES[column.kind])
    found = np.empty(len(values), object)
    for i, value in enumerate(values):  # numpy would make one array of equal vectors
        found[i] = value
    return found


def _add_to_arrow(batch: Any, columns: Sequence[Column], values: Mapping[str, list[object]]) -> Any:
    arrow = sys.modules["pyarrow"]
    types = {
        "text": arrow.string(),
        "integer": arrow.int64(),
        "number": arrow.float64(),
        "numbers": arrow.list_(arrow.float64()),
        "vector": arrow.list_(arrow.float32()),
        "bytes": arrow.binary(),
    }
    arrays = [arrow.array(values[column.name], types[column.kind]) for column in columns]
    fields = [arrow.field(column.name, types[column.kind]) for column in columns]
    schema = arrow.schema([*batch.schema, *fields], metadata=batch.schema.metadata)
    return type(batch).from_arrays([*batch.columns, *arrays], schema=schema)
