"""Argo CD's health checks: a Lua 5.1 script that sees a resource and says how it is."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

# It ships no types.
_lua51: Any = importlib.import_module("lupa.lua51")

# Argo CD opens `table` and the basic functions, and `os` for the time alone; a string has no methods there.
_AS_ARGO_CD_HAS_IT = """
getmetatable("").__index = nil
for _, name in ipairs({"string", "math", "io", "debug", "coroutine", "os", "python"}) do
  _G[name] = nil
end
"""


class HealthStatus(StrEnum):
    """What a script may answer."""

    HEALTHY = "Healthy"
    PROGRESSING = "Progressing"
    SUSPENDED = "Suspended"
    DEGRADED = "Degraded"


@dataclass(frozen=True)
class Health:
    """What Argo CD shows of a resource."""

    status: HealthStatus
    message: str


def health(script: Path, body: Mapping[str, Any]) -> Health:
    """Run a script on a resource as Argo CD does: alone, without Lua's libraries, the resource in `obj`."""
    lua = _lua51.LuaRuntime(register_eval=False, register_builtins=False)
    lua.execute(_AS_ARGO_CD_HAS_IT)
    lua.globals().obj = lua.table_from(body, recursive=True)
    told = dict(lua.execute(script.read_text()).items())
    return Health(HealthStatus(told.pop("status")), **told)
