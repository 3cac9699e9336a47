"""Where the cluster is and how to log in, as kubectl finds them: --kubeconfig, KUBECONFIG, ~/.kube/config, a pod's own.

Nothing is asked here but the program that a user's `exec` names, and that only once credentials are needed.
"""

import base64
import binascii
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

from kubectl_rollway.errors import UnreachableError

_POD: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PATHS: Final = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
_EXEC_SECONDS: Final = 120.0


@dataclass(frozen=True)
class Credentials:
    """What is shown to the API server."""

    token: str | None = field(default=None, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    password: tuple[str, str] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Access:
    """One context: an API server, a user, and a namespace."""

    server: str
    namespace: str
    authority: bytes | None = None
    verify: bool = True
    server_name: str | None = None
    proxy: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    user: Mapping[str, Any] = field(default_factory=dict, repr=False)
    cluster: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def renewable(self) -> bool:
        """Whether credentials may be other ones when they are read again."""
        return "exec" in self.user or "tokenFile" in self.user

    def credentials(self) -> Credentials:
        """Read what to show, and start the program that makes it if the user has one."""
        user = self.user
        if "auth-provider" in user:
            raise UnreachableError(
                "the user of this context has an auth-provider, which kubectl itself no longer knows: use exec instead"
            )
        token = user.get("token")
        if "tokenFile" in user:
            token = _read(user["tokenFile"]).decode(errors="replace").strip()
        password = (str(user["username"]), str(user.get("password", ""))) if "username" in user else None
        found = Credentials(token, _bytes(user, "client-certificate"), _bytes(user, "client-key"), password)
        return _made(user["exec"], self.cluster, found) if "exec" in user else found


@dataclass(frozen=True)
class Kubeconfig:
    """The files merged: of two entries with one name the first counts."""

    current: str
    contexts: Mapping[str, Mapping[str, Any]]
    clusters: Mapping[str, Mapping[str, Any]]
    users: Mapping[str, Mapping[str, Any]]

    @classmethod
    def load(cls, named: str | None, environment: Mapping[str, str]) -> Self:
        """Read the file that was named, or those of KUBECONFIG, or the one in the home folder."""
        merged: dict[str, dict[str, Mapping[str, Any]]] = {"contexts": {}, "clusters": {}, "users": {}}
        current = ""
        for path in _files(named, environment):
            document = _document(path)
            current = current or str(document.get("current-context") or "")
            for kind, entries in merged.items():
                for name, entry in _entries(document, kind, path):
                    entries.setdefault(name, entry)
        return cls(current, **merged)

    def access(self, context: str | None, namespace: str | None) -> Access:
        """Give one context's cluster, user and namespace."""
        chosen = context or self.current
        if not chosen:
            raise UnreachableError("no context is chosen: name one by --context, or a file by KUBECONFIG")
        if chosen not in self.contexts:
            known = ", ".join(sorted(self.contexts)) or "none"
            raise UnreachableError(f'there is no context "{chosen}" in the kubeconfig; there are: {known}')
        entry = self.contexts[chosen]
        cluster, user = (
            self.clusters.get(str(entry.get("cluster"))),
            self.users.get(str(entry.get("user")), {}),
        )
        if not cluster or not cluster.get("server"):
            raise UnreachableError(f'the kubeconfig names no server for the context "{chosen}"')
        return Access(
            server=str(cluster["server"]).rstrip("/"),
            namespace=namespace or str(entry.get("namespace") or "default"),
            authority=_bytes(cluster, "certificate-authority"),
            verify=not cluster.get("insecure-skip-tls-verify"),
            server_name=cluster.get("tls-server-name"),
            proxy=cluster.get("proxy-url"),
            headers=tuple(_impersonated(user)),
            user=user,
            cluster=cluster,
        )


def find(
    named: str | None, context: str | None, namespace: str | None, environment: Mapping[str, str]
) -> Access:
    """Find the cluster: by the kubeconfig, or, in a pod that has none, by its service account."""
    found = Kubeconfig.load(named, environment)
    if not found.contexts and not context and "KUBERNETES_SERVICE_HOST" in environment and _POD.is_dir():
        host, port = environment["KUBERNETES_SERVICE_HOST"], environment.get("KUBERNETES_SERVICE_PORT", "443")
        return Access(
            server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
            namespace=namespace or _read(str(_POD / "namespace")).decode().strip(),
            authority=_read(str(_POD / "ca.crt")),
            user={"tokenFile": str(_POD / "token")},
        )
    return found.access(context, namespace)


def _files(named: str | None, environment: Mapping[str, str]) -> Iterator[Path]:
    if named:
        if not Path(named).is_file():
            raise UnreachableError(f"there is no kubeconfig {named}")
        yield Path(named)
    elif environment.get("KUBECONFIG"):
        listed = (Path(part) for part in environment["KUBECONFIG"].split(os.pathsep) if part)
        yield from (path for path in listed if path.is_file())
    elif (path := Path.home() / ".kube" / "config").is_file():
        yield path


def _document(path: Path) -> Mapping[str, Any]:
    import yaml  # noqa: PLC0415 - a command that asks no cluster starts without it

    try:
        document = yaml.load(_read(str(path)), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - safe both
    except yaml.YAMLError as error:
        raise UnreachableError(f"the kubeconfig {path} is no YAML: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, Mapping):
        raise UnreachableError(f"the kubeconfig {path} is no mapping")
    return document


def _entries(document: Mapping[str, Any], kind: str, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for listed in document.get(kind) or ():
        if isinstance(listed, Mapping) and "name" in listed:
            entry = listed.get(kind[:-1])
            yield str(listed["name"]), _rooted(entry if isinstance(entry, Mapping) else {}, path.parent)


def _rooted(entry: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths of an entry start from the folder of its file."""
    rooted: dict[str, Any] = {key: str(folder / str(entry[key])) for key in _PATHS if entry.get(key)}
    program = entry.get("exec")
    if isinstance(program, Mapping) and os.sep in str(program.get("command", "")):
        rooted["exec"] = {**program, "command": str(folder / str(program["command"]))}
    return {**entry, **rooted}


def _impersonated(user: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, header in (("as", "Impersonate-User"), ("as-uid", "Impersonate-Uid")):
        if user.get(key):
            yield header, str(user[key])
    for group in user.get("as-groups") or ():
        yield "Impersonate-Group", str(group)
    for key, values in (user.get("as-user-extra") or {}).items():
        for value in values:
            yield f"Impersonate-Extra-{key}", str(value)


def _bytes(entry: Mapping[str, Any], key: str) -> bytes | None:
    """Give what an entry holds itself, or what the file that it names holds."""
    if data := entry.get(f"{key}-data"):
        try:
            return base64.b64decode(str(data), validate=True)
        except binascii.Error as error:
            raise UnreachableError(f"{key}-data in the kubeconfig is no base64") from error
    return _read(str(entry[key])) if entry.get(key) else None


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UnreachableError(f"cannot read {path}: {error.strerror}") from error


# ------------------------------------------------------------------------------- credentials that a program makes


def _made(program: Mapping[str, Any], cluster: Mapping[str, Any], found: Credentials) -> Credentials:
    """Start a user's `exec` program and take what it prints: an ExecCredential."""
    command, version = str(program.get("command", "")), str(program.get("apiVersion", ""))
    if shutil.which(command) is None:
        raise UnreachableError(
            f"{command}, which makes the credentials of this context, is not there. "
            f"{program.get('installHint') or ''}"
        )
    asks = program.get("interactiveMode") != "Never" and sys.stdin is not None and sys.stdin.isatty()
    spec: dict[str, Any] = {"interactive": asks}
    if program.get("provideClusterInfo"):
        spec["cluster"] = _told(cluster)
    request = {"apiVersion": version, "kind": "ExecCredential", "spec": spec}
    chosen = {str(one["name"]): str(one["value"]) for one in program.get("env") or ()}
    try:
        done = subprocess.run(  # noqa: S603 - the kubeconfig's own program, as kubectl starts it
            [command, *map(str, program.get("args") or ())],
            env={**os.environ, **chosen, "KUBERNETES_EXEC_INFO": json.dumps(request)},
            stdin=None if asks else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=_EXEC_SECONDS,
            check=True,
        )
        status = dict(json.loads(done.stdout)["status"])
    except (OSError, subprocess.SubprocessError) as error:
        raise UnreachableError(
            f"{command}, which makes the credentials of this context, failed: {error}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UnreachableError(f"{command} printed no ExecCredential with a status") from error
    given = replace(found, token=status.get("token") or found.token)
    if status.get("clientCertificateData"):
        certificate, key = status["clientCertificateData"], status.get("clientKeyData", "")
        return replace(given, certificate=certificate.encode(), key=key.encode())
    return given


def _told(cluster: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a program is told of the cluster."""
    names = {"server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url"}
    told = {key: value for key, value in cluster.items() if key in names}
    authority = _bytes(cluster, "certificate-authority")
    if authority:
        told["certificate-authority-data"] = base64.b64encode(authority).decode()
    return told
