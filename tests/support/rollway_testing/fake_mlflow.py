"""An MLflow tracking server in the process, as far as the operator asks it; a test holds it to the real one."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

Answer = Callable[[httpx.Request], Awaitable[httpx.Response]]


@dataclass
class FakeVersion:
    """A version as it was registered."""

    uri: str
    created: int
    run_id: str = "run"
    status: str = "READY"
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class FakeMLflow:
    """Registered models by name, answers by HTTP, and a count of the requests by call."""

    versions: dict[str, dict[str, FakeVersion]] = field(default_factory=dict)
    aliases: dict[str, dict[str, str]] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    seen: list[httpx.Request] = field(default_factory=list)
    instead: Answer | None = None
    """Answers everything in the server's place while it is set."""

    @property
    def transport(self) -> httpx.MockTransport:
        """What an httpx client takes for the network."""
        return httpx.MockTransport(self._answer)

    def register(self, model: str, version: str, uri: str, *aliases: str) -> FakeVersion:
        """Add a version, and point aliases to it."""
        made = FakeVersion(uri, created=1000 + sum(len(versions) for versions in self.versions.values()))
        self.versions.setdefault(model, {})[version] = made
        for alias in aliases:
            self.point(model, alias, version)
        return made

    def point(self, model: str, alias: str, version: str) -> None:
        """Point an alias to a version."""
        self.aliases.setdefault(model, {})[alias] = version

    def delete(self, model: str, version: str) -> None:
        """Delete a version, and with it the aliases that point to it."""
        del self.versions[model][version]
        pointing = self.aliases.get(model, {})
        self.aliases[model] = {alias: to for alias, to in pointing.items() if to != version}

    def answer_with(
        self, status: int, body: bytes | str, content_type: str = "application/json", **headers: str
    ) -> None:
        """Answer everything alike from now on."""

        async def answer(_: httpx.Request) -> httpx.Response:
            return httpx.Response(status, content=body, headers={"content-type": content_type} | headers)

        self.instead = answer

    def hang(self) -> None:
        """Answer nothing from now on."""

        async def never(_: httpx.Request) -> httpx.Response:
            await asyncio.sleep(3600)
            raise AssertionError("an hour is more than anybody should wait")

        self.instead = never

    def refuse_connections(self) -> None:
        """Be down from now on."""

        async def refuse(request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("connection refused", request=request)

        self.instead = refuse

    def recover(self) -> None:
        """Be what it was."""
        self.instead = None

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        call = request.url.path.partition("/api/2.0/mlflow/")[2]
        self.requests[call] += 1
        self.seen.append(request)
        await asyncio.sleep(0.01)
        if self.instead is not None:
            return await self.instead(request)
        return self._of_call(call, dict(request.url.params))

    def _of_call(self, call: str, parameters: dict[str, str]) -> httpx.Response:
        name, version = parameters.get("name", ""), parameters.get("version", "")
        match call:
            case "registered-models/search":
                return _json(
                    {"registered_models": [self._model(model) for model in sorted(self.versions)[:1]]}
                )
            case "registered-models/get":
                if name not in self.versions:
                    return _missing(f"Registered Model with name={name} not found")
                return _json({"registered_model": self._model(name)})
            case "model-versions/get" | "model-versions/get-download-uri":
                return self._of_version(call, name, version)
        return httpx.Response(
            404, content="<!doctype html>", headers={"content-type": "text/html; charset=utf-8"}
        )

    def _of_version(self, call: str, name: str, version: str) -> httpx.Response:
        if not version.isdigit():
            return _error(
                400, "INVALID_PARAMETER_VALUE", f"Parameter 'version' must be an integer, got '{version}'."
            )
        if version not in self.versions.get(name, {}):
            return _missing(f"Model Version (name={name}, version={version}) not found")
        if call == "model-versions/get-download-uri":
            return _json({"artifact_uri": self.versions[name][version].uri})
        return _json({"model_version": self._version(name, version)})

    def _model(self, name: str) -> dict[str, Any]:
        aliases = [
            {"alias": alias, "version": to} for alias, to in sorted(self.aliases.get(name, {}).items())
        ]
        return {"name": name, "creation_timestamp": 1} | ({"aliases": aliases} if aliases else {})

    def _version(self, name: str, version: str) -> dict[str, Any]:
        found = self.versions[name][version]
        return {
            "name": name,
            "version": version,
            "creation_timestamp": found.created,
            "source": found.uri,
            "run_id": found.run_id,
            "status": found.status,
        } | (
            {"tags": [{"key": key, "value": value} for key, value in found.tags.items()]}
            if found.tags
            else {}
        )


def _json(body: dict[str, Any], status: int = 200) -> httpx.Response:
    return httpx.Response(status, content=json.dumps(body), headers={"content-type": "application/json"})


def _error(status: int, code: str, message: str) -> httpx.Response:
    return _json({"error_code": code, "message": message}, status)


def _missing(message: str) -> httpx.Response:
    return _error(404, "RESOURCE_DOES_NOT_EXIST", message)
