"""Makes the store or the tools slow in every process of a graph: this folder is on its PYTHONPATH.

``SLOW_STORE_MS``: each operation of the embedded store's writer takes that much longer. ``SLOW_TOOL_MS``: each tool call does.
The modules are changed as they are imported, so that processes that never use them import nothing.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

STORE_MS = float(os.environ.get("SLOW_STORE_MS") or 0)
TOOL_MS = float(os.environ.get("SLOW_TOOL_MS") or 0)


def _slow_writer(module: ModuleType) -> None:
    import time

    apply = module.Writer._apply

    def slowly(self: Any, operation: Any, now: float) -> None:
        time.sleep(STORE_MS / 1000)
        apply(self, operation, now)

    module.Writer._apply = slowly


def _slow_tools(module: ModuleType) -> None:
    import asyncio

    call = module.McpToolExecutor.call

    async def slowly(self: Any, *arguments: Any, **named: Any) -> Any:
        await asyncio.sleep(TOOL_MS / 1000)
        return await call(self, *arguments, **named)

    module.McpToolExecutor.call = slowly


class _Changing(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of ``changes`` as Python does, and changes each when it has been executed."""

    def __init__(self, changes: dict[str, Callable[[ModuleType], None]]) -> None:
        self._changes = changes
        self._loaders: dict[str, Any] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._changes or fullname in self._loaders:
            return None
        self._loaders[fullname] = None  # the search below comes here again
        spec = importlib.util.find_spec(fullname)
        if spec is not None:
            self._loaders[fullname], spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self._loaders[spec.name].create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        self._loaders[module.__name__].exec_module(module)
        self._changes[module.__name__](module)


_changes: dict[str, Callable[[ModuleType], None]] = {}
if STORE_MS:
    _changes["serve_app.storage.sqlite.writer"] = _slow_writer
if TOOL_MS:
    _changes["serve_app.tools.executor"] = _slow_tools
if _changes:
    sys.meta_path.insert(0, _Changing(_changes))
