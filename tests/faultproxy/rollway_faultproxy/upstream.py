"""The server behind the proxy: where it is and how it is logged in to; and a kubeconfig that names the proxy."""

import base64
import json
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Upstream:
    """An address, and credentials that take the place of the caller's where there are any."""

    url: str
    tls: ssl.SSLContext | None = None
    token: str | None = None
    context: str = "faultproxy"
    """The kubeconfig's current context."""

    @classmethod
    def of_kubeconfig(cls, file: Path) -> "Upstream":
        """Read the current context of a kubeconfig."""
        document = yaml.safe_load(file.read_text())
        context = _named(document["contexts"], document["current-context"])["context"]
        cluster = _named(document["clusters"], context["cluster"])["cluster"]
        user = _named(document["users"], context["user"])["user"]
        return cls(
            url=cluster["server"],
            tls=_tls(cluster, user) if cluster["server"].startswith("https:") else None,
            token=user.get("token"),
            context=document["current-context"],
        )


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)


def _tls(cluster: Mapping[str, str], user: Mapping[str, str]) -> ssl.SSLContext:
    with tempfile.TemporaryDirectory() as folder:

        def file(source: Mapping[str, str], key: str) -> str | None:
            """OpenSSL reads certificates from files alone."""
            if f"{key}-data" not in source:
                return source.get(key)
            path = Path(folder, key)
            path.write_bytes(base64.b64decode(source[f"{key}-data"]))
            return str(path)

        tls = ssl.create_default_context(cafile=file(cluster, "certificate-authority"))
        if (certificate := file(user, "client-certificate")) is not None:
            tls.load_cert_chain(certificate, file(user, "client-key"))
        return tls


def kubeconfig(url: str, context: str) -> str:
    """Write a kubeconfig that reaches the proxy and needs no credentials; JSON, which is YAML."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": {"server": url}}],
        "users": [{"name": context, "user": {}}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        "current-context": context,
    }
    return json.dumps(document, indent=2) + "\n"
