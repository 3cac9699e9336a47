"""Whose certificates are believed: the public roots, and one more authority where the registry names it."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path

import httpx

from rollway_serving.errors import FetchFailed

_MAX_BYTES = 1 << 20
_UNTRUSTED = re.compile(r"certificate verify failed: ([^(\n]+)|InvalidCertificate\(\s*(\w+)")
"""OpenSSL's words, and those of the TLS library inside obstore."""


@dataclass(frozen=True, slots=True)
class Trust:
    """A private authority's certificates as PEM, if there is one."""

    bundle: bytes | None = None

    @classmethod
    def load(cls, path: str | None) -> Trust:
        """Read the bundle, which must hold at least one certificate."""
        if not path:
            return cls()
        try:
            with Path(path).open("rb") as file:
                bundle = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise FetchFailed(
                f"the CA bundle cannot be read ({error.strerror}): the ConfigMap of caBundleRef needs the key ca.crt"
            ) from None
        trust = cls(bundle)
        try:
            trust.context()
        except (ssl.SSLError, ValueError):
            raise FetchFailed(
                "the CA bundle holds no certificate: ca.crt in the ConfigMap of caBundleRef must be PEM"
            ) from None
        return trust

    def context(self) -> ssl.SSLContext:
        """What a client of httpx goes by."""
        context = httpx.create_ssl_context(trust_env=False)
        if self.bundle is not None:
            context.load_verify_locations(cadata=self.bundle.decode("ascii"))
        return context


def check_certificate(who: str, error: BaseException) -> None:
    """Raise what ends at once, as no retry helps: a certificate that is not believed, with the way out."""
    seen: BaseException | None = error
    while seen is not None:
        if match := _UNTRUSTED.search(str(seen)):
            reason = next(filter(None, match.groups()), "no more is said").strip()[:100]
            raise FetchFailed(
                f"{who}'s certificate is not trusted ({reason}): if a private authority signed it, put that one's "
                "certificate into a ConfigMap and name it in the ModelRegistry's artifacts[].caBundleRef"
            ) from error
        seen = seen.__cause__ or seen.__context__
