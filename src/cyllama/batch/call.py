"""The base class of the callables: columns in, columns out, one model in a process, rows in parallel."""

from __future__ import annotations

import functools
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, TypeVar, cast

from cyllama._cancel import Cancel
from cyllama.batch._columns import Column, ColumnKind, add_columns, read_columns
from cyllama.batch.ray_arguments import RayArguments, ray_arguments
from cyllama.pipelines import default_pool, model_size
from cyllama.pipelines._types import ModelName

__all__ = ["BatchCall", "Row"]

Batch = TypeVar("Batch")
Row = dict[str, object]
"""The new columns of a row."""


class BatchCall(ABC):
    """A callable for batches of rows; see the classes of `cyllama.batch`.

    Parameters
    ----------
    model : str or path
        A file, or a name of `cyllama.models`. It must exist on every machine that calls the object.
    columns : sequence of str
        The columns that are read.
    settings : mapping, optional
        Keyword arguments of the model's class, such as ``{"n_ctx": 4096, "n_parallel": 8}``.
    output : str
        The column of the results.
    prefix : str
        Beginning of the names of the other new columns: ``error`` and those of the usage.
    parallel : int, optional
        Rows that are computed at the same time.

    Notes
    -----
    A row that fails has None as its result and the message in the column ``error``; the other rows are computed. A
    model that cannot be loaded is an exception. An empty batch gets the new columns without loading the model.

    Thread safety: several threads may call an object. Pickling keeps the configuration only.
    """

    engine: ClassVar[str]
    """Kind of the model in a `cyllama.pipelines.ModelPool`."""
    result_kind: ClassVar[ColumnKind] = "text"
    usage: ClassVar[Mapping[str, ColumnKind]] = {}
    """The columns of the usage."""
    rows_per_slot: ClassVar[int] = 8
    """Rows of a batch for each slot, so that the slots of the engine are busy until its end."""

    def __init__(
        self,
        model: ModelName | None,
        /,
        *,
        columns: Sequence[str],
        settings: Mapping[str, Any] | None,
        output: str,
        prefix: str,
        parallel: int | None = None,
    ) -> None:
        for name, value in (("output", output), *(("column", column) for column in columns)):
            if not isinstance(value, str) or not value:
                raise ValueError(f"{name} is {value!r}, expected the name of a column")
        if parallel is not None and (isinstance(parallel, bool) or not isinstance(parallel, int) or parallel < 1):
            raise ValueError(f"parallel is {parallel!r}, expected 1 or more rows")
        self.model, self.settings = model, dict(settings or {})
        self._columns, self._prefix, self._parallel = tuple(columns), prefix, parallel
        self._result = Column(output, self.result_kind)
        self._error = Column(f"{prefix}error", "text")
        self._usage = {name: Column(prefix + name, kind) for name, kind in self.usage.items()}
        names = [column.name for column in self._new_columns]
        if len(set(names)) < len(names):
            raise ValueError(f"output is {output!r}, expected another name than {', '.join(names[1:])}")

    @property
    def _new_columns(self) -> list[Column]:
        return [self._result, self._error, *self._usage.values()]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"

    def __call__(self, batch: Batch) -> Batch:
        """Compute a batch.

        Parameters
        ----------
        batch : dict of columns, DataFrame, Table, RecordBatch, or iterator of them

        Returns
        -------
        of the same kind
            With the new columns; of an iterator, an iterator that computes each batch when it is needed.

        Raises
        ------
        TypeError, ValueError
            The batch is of another kind, lacks a column, or has a new column already.
        FileNotFoundError, ModelLoadError, OutOfMemoryError, ...
            The model cannot be loaded.
        """
        if isinstance(batch, Iterator):
            return cast(Batch, map(self, batch))
        cells = read_columns(batch, self._columns)
        values = {column.name: [column.empty] * len(cells[0]) for column in self._new_columns}
        add_columns(
            batch, self._new_columns, values
        )  # names that exist already are an error before anything is computed
        for i, row in enumerate(self._compute(list(zip(*cells, strict=True)))):
            for name, value in row.items():
                values[name][i] = value
        return cast(Batch, add_columns(batch, self._new_columns, values))

    def _compute(self, rows: Sequence[tuple[object, ...]]) -> list[Row]:
        """Return the new columns of each row; load the model again when its engine has stopped."""
        found: dict[int, Row] = {}
        pool, alone = default_pool(), False
        while len(found) < len(rows):
            with pool.use(self.engine, self.model, **self.settings) as model:
                pending = [i for i in range(len(rows)) if i not in found]
                self._pass(model, rows, pending, found, alone)
                stopped = getattr(model, "failure", None) is not None
            if stopped:  # one of the rows did that: from now on, one runs at a time
                pool.unload(self.engine, self.model, self.settings)
                alone = True
        return [found[i] for i in range(len(rows))]

    def _pass(
        self, model: Any, rows: Sequence[tuple[object, ...]], pending: Sequence[int], found: dict[int, Row], alone: bool
    ) -> None:
        """Compute rows until all are done or the engine stops."""
        cancel = threading.Event()
        one = functools.partial(self._one, model, cancel=cancel)
        if alone:
            for i in pending:
                found[i] = one(rows[i])
                if getattr(model, "failure", None) is not None:
                    return
            return
        workers = min(len(pending), self._parallel or self._slots(model))
        with ThreadPoolExecutor(workers, thread_name_prefix="cyllama-batch") as threads:
            try:
                for i, row in zip(pending, threads.map(one, [rows[i] for i in pending]), strict=True):
                    if row[self._error.name] is None or getattr(model, "failure", None) is None:
                        found[i] = row
            except BaseException:
                cancel.set()
                threads.shutdown(cancel_futures=True)
                raise

    def _one(self, model: Any, cells: tuple[object, ...], *, cancel: Cancel) -> Row:
        try:
            result, usage = self._row(model, cells, cancel)
        except Exception as error:  # of any class: a row must not end the batch
            return {self._error.name: f"{type(error).__name__}: {error}"}
        names = {column.name: usage[name] for name, column in self._usage.items()}
        return {self._result.name: result, self._error.name: None, **names}

    @abstractmethod
    def _row(self, model: Any, cells: tuple[object, ...], cancel: Cancel) -> tuple[object, Mapping[str, object]]:
        """Return the result and the usage of a row."""

    def _slots(self, model: Any) -> int:
        """Return how many rows to compute at the same time: a slot that becomes free finds the next one."""
        return 1

    @property
    def _expected_slots(self) -> int:
        """The slots of the model before it is loaded."""
        return self._parallel or 1

    def ray_arguments(
        self,
        nodes: Iterable[Mapping[str, float]] | None = None,
        *,
        memory: int | None = None,
        gpus: float | None = None,
    ) -> RayArguments:
        """Return keyword arguments of ``ray.data.Dataset.map_batches`` for this configuration.

        >>> dataset.map_batches(Chat, **chat.ray_arguments())                       # doctest: +SKIP

        Parameters
        ----------
        nodes : iterable of mapping, optional
            The resources of each node: ``[node["Resources"] for node in ray.nodes() if node["Alive"]]``. By default,
            one node that is this machine.
        memory : int, optional
            Bytes of a worker; by default estimated from the model's file and `settings`.
        gpus : float, optional
            GPUs of a worker; by default 1 if every node has one, unless `settings` has ``n_gpu_layers=0``.

        Returns
        -------
        RayArguments
            ``num_cpus``, ``memory``, ``num_gpus``, ``batch_size``, ``concurrency`` and the arguments of the
            constructor. The workers of a node leave a part of its CPUs free, for the tasks that read and write the
            data: those would wait for ever if the workers took all.

        Raises
        ------
        ValueError
            No node has enough memory for the model.
        """
        need = model_size(self.engine, self.model, **self.settings) if memory is None else memory
        return ray_arguments(
            (self.model,),
            self._constructor(),
            need=need,
            nodes=nodes,
            batch_size=self.rows_per_slot * self._expected_slots,
            gpus=0.0 if gpus is None and self.settings.get("n_gpu_layers") == 0 else gpus,
        )

    def _constructor(self) -> dict[str, Any]:
        """Return the keyword arguments that, after the model, make an equal object."""
        common = {"settings": self.settings, "output": self._result.name, "prefix": self._prefix}
        return {**common, "parallel": self._parallel, **self._own_arguments()}

    @abstractmethod
    def _own_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of this class."""
