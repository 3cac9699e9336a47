"""Workload identity: the credentials of an AWS role, for the token that Kubernetes put into the pod.

``AssumeRoleWithWebIdentity`` is one unsigned HTTPS request: the token is the proof, and nothing else is stored
anywhere. What comes back is short-lived, and asked for again in time::

    token file (projected, audience sts.amazonaws.com) ──► STS ──► key, secret, session token, until when
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from xml.parsers import expat

import httpx

from rollway_serving.errors import FetchFailed
from rollway_serving.fetch.sources import Transient
from rollway_serving.fetch.trust import check_certificate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from obstore.store import S3Credential

    from rollway_serving.fetch.trust import Trust

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 15.0
_EARLY = timedelta(minutes=5)
_MAX_TOKEN_BYTES = 16 << 10
_MAX_ANSWER_BYTES = 64 << 10
_MAX_CREDENTIAL = 8 << 10
_TRANSIENT = frozenset(
    {"IDPCommunicationError", "InternalFailure", "RequestLimitExceeded", "ServiceUnavailable", "Throttling"}
)
_TRUST_POLICY = (
    "its trust policy must allow sts:AssumeRoleWithWebIdentity to this namespace's service account"
)
_PROVIDER = (
    "the AWS account needs an OIDC provider of the cluster's issuer with the audience sts.amazonaws.com"
)
_FIXES = {
    "AccessDenied": _TRUST_POLICY,
    "IDPRejectedClaim": _TRUST_POLICY,
    "InvalidIdentityToken": _PROVIDER,
    "ExpiredTokenException": "the pod's token has expired, so compare the node's clock with the cluster's",
    "RegionDisabledException": "switch STS on in that region, or set the ModelRegistry's artifacts[].stsEndpoint",
    "ValidationError": "correct the ModelRegistry's artifacts[].roleARN",
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Role:
    """Which role, by which token, in whose name, and where to ask."""

    arn: str
    token_file: Path
    session: str
    endpoint: str

    @classmethod
    def from_environment(cls, variables: Mapping[str, str], region: str | None) -> Role | None:
        """Read the variables that AWS's own clients read; ``None`` without a role."""
        arn = variables.get("AWS_ROLE_ARN")
        if not arn:
            return None
        file = variables.get("AWS_WEB_IDENTITY_TOKEN_FILE")
        if not file:
            raise FetchFailed("there is a roleARN, but no token: AWS_WEB_IDENTITY_TOKEN_FILE is not set")
        endpoint = variables.get("ROLLWAY_STS_ENDPOINT")
        return cls(
            arn=arn,
            token_file=Path(file),
            session=variables.get("AWS_ROLE_SESSION_NAME") or "rollway",
            endpoint=endpoint or f"https://sts.{region or 'us-east-1'}.amazonaws.com",
        )


class WebIdentity:
    """The role's credentials, renewed before they expire."""

    def __init__(self, role: Role, trust: Trust) -> None:
        self._role = role
        self._lock = asyncio.Lock()
        self._credential: S3Credential | None = None
        self._until = datetime.min.replace(tzinfo=UTC)
        self._client = httpx.AsyncClient(
            verify=trust.context(),
            follow_redirects=False,
            trust_env=False,
            timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
        )

    async def renew(self) -> None:
        """Make sure that the credentials are good for some minutes more; before every request to the store."""
        async with self._lock:
            if self._until - datetime.now(UTC) > _EARLY:
                return
            self._credential = await self._assume()
            until = self._credential["expires_at"]
            self._until = until or self._until
            _log.info("AWS gave the role %s until %s", self._role.arn, until)

    def __call__(self) -> S3Credential:
        """Give the store's client what `renew` got."""
        if self._credential is None:
            raise RuntimeError("asked for credentials before there were any")
        return self._credential

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _assume(self) -> S3Credential:
        token = _read_token(self._role.token_file)
        form = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": self._role.arn,
            "RoleSessionName": self._role.session[:64],
            "WebIdentityToken": token,
        }
        try:
            async with self._client.stream("POST", self._role.endpoint, data=form) as answer:
                body = b""
                async for chunk in answer.aiter_bytes():
                    body += chunk
                    if len(body) > _MAX_ANSWER_BYTES:
                        raise Transient("STS answers with more than a credential")
        except httpx.HTTPError as error:
            check_certificate("STS", error)
            raise Transient(f"STS at {self._role.endpoint}: {type(error).__name__}") from error
        if answer.is_redirect:
            raise FetchFailed("STS answers with a redirect, which is not followed: correct stsEndpoint")
        said = read_answer(body)
        if not answer.is_success:
            raise self._refusal(answer.status_code, said, token)
        return credential(said)

    def _refusal(self, status: int, said: Mapping[str, str], token: str) -> Exception:
        code = said.get("Code", "")
        if code.removesuffix("Exception") in _TRANSIENT or status >= httpx.codes.INTERNAL_SERVER_ERROR:
            return Transient(f"STS answered HTTP {status} {code[:60]}")
        fix = _FIXES.get(code, "see the ModelRegistry's artifacts[].roleARN and .stsEndpoint")
        # What it says may quote what it was sent.
        message = said.get("Message", "").replace(token, "(the token)")[:200]
        return FetchFailed(
            f"AWS does not give the role {self._role.arn[:200]}: {fix} (HTTP {status} {code[:60]}: {message})"
        )


def read_answer(body: bytes) -> dict[str, str]:
    """Give the text of each element by its bare name; what is no XML, or defines entities, gives nothing."""
    found: dict[str, str] = {}
    path: list[str] = []
    text: list[str] = []

    def start(name: str, _: dict[str, str]) -> None:
        path.append(name.rpartition(" ")[2])
        text.clear()

    def end(_: str) -> None:
        found.setdefault(path.pop(), "".join(text).strip())
        text.clear()

    def refuse(*_: object) -> None:
        raise ValueError("a document type")

    parser = expat.ParserCreate("utf-8", " ")
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text.append
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, ValueError):
        return {}
    return found


def credential(said: Mapping[str, str]) -> S3Credential:
    """Read the credentials in an answer."""
    try:
        values = [said[name] for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")]
        until = datetime.fromisoformat(said["Expiration"])
    except (KeyError, ValueError):
        raise Transient("STS answered without credentials") from None
    if not all(
        value.isascii() and value.isprintable() and 0 < len(value) < _MAX_CREDENTIAL for value in values
    ):
        raise Transient("STS answered with credentials that cannot stand in a header")
    return {
        "access_key_id": values[0],
        "secret_access_key": values[1],
        "token": values[2],
        "expires_at": until if until.tzinfo else until.replace(tzinfo=UTC),
    }


def _read_token(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(_MAX_TOKEN_BYTES + 1)
    except OSError as error:
        raise FetchFailed(f"the pod's token cannot be read: {error.strerror}") from None
    if not data.strip() or len(data) > _MAX_TOKEN_BYTES or not data.isascii():
        raise FetchFailed(
            "the pod's token is no token: the projected volume's file is empty or something else"
        )
    return data.decode("ascii").strip()
