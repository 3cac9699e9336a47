"""A tracking server whose certificate no public authority signed: trusted by the ModelRegistry's CA bundle alone."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rollway_operator.registries import CABundleInvalidError, CertificateNotTrustedError
from rollway_operator.registries import mlflow as module
from rollway_operator.registries.mlflow import MLflowRegistry


class Authority:
    """A certificate authority, and a server's certificate for 127.0.0.1 that it signed."""

    def __init__(self, folder: Path, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._root = self._signed(own, own, key, key, x509.BasicConstraints(ca=True, path_length=None))
        self.pem = self._root.public_bytes(serialization.Encoding.PEM).decode()
        theirs = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mlflow")])
        names = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
        certificate = self._signed(subject, own, theirs, key, names)
        self._files = folder / f"{name}.crt", folder / f"{name}.key"
        self._files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        self._files[1].write_bytes(
            theirs.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        )

    def _signed(
        self,
        subject: x509.Name,
        issuer: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        signing: ec.EllipticCurvePrivateKey,
        extension: x509.ExtensionType,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(authority, critical=False)
            .sign(signing, hashes.SHA256())
        )

    def served(self) -> ssl.SSLContext:
        """Give what a server needs to show the certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self._files)
        return context


@asynccontextmanager
async def a_server(shown: Authority) -> AsyncIterator[str]:
    """Answer every request as MLflow answers a search, showing the authority's certificate."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"registered_models": []}).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close"
        writer.write(f"{head}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=shown.served())
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"https://127.0.0.1:{port}"


class Bundle:
    """What the operator's ConfigMap holds now."""

    def __init__(self, text: str | None) -> None:
        self.text = text

    async def read(self) -> str | None:
        return self.text


async def nobody() -> None:
    return None


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority]:
    folder = tmp_path_factory.mktemp("pki")
    return Authority(folder, "first"), Authority(folder, "second")


async def test_without_a_bundle_a_private_certificate_is_refused_and_the_field_is_named(
    authorities: tuple[Authority, Authority],
) -> None:
    first, _ = authorities
    async with a_server(first) as uri:
        registry = MLflowRegistry("default", uri, nobody)
        with pytest.raises(CertificateNotTrustedError, match=r"'default'.*spec\.mlflow\.caBundleRef"):
            await registry.ping()
        await registry.aclose()


async def test_a_bundle_is_trusted_and_a_new_one_takes_its_place_while_the_operator_runs(
    authorities: tuple[Authority, Authority], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CREDENTIALS_SECONDS", 0.0)
    first, second = authorities
    bundle = Bundle(first.pem)
    async with a_server(first) as uri:
        registry = MLflowRegistry("default", uri, nobody, bundle.read)
        await registry.ping()
        bundle.text = second.pem
        with pytest.raises(CertificateNotTrustedError):
            await registry.ping()
        bundle.text = second.pem + first.pem
        await registry.ping()
        await registry.aclose()


async def test_a_certificate_that_is_refused_has_the_bundle_read_again_before_its_time(
    authorities: tuple[Authority, Authority],
) -> None:
    first, second = authorities
    bundle = Bundle(first.pem)
    async with a_server(second) as uri:
        registry = MLflowRegistry("default", uri, nobody, bundle.read)
        with pytest.raises(CertificateNotTrustedError):
            await registry.ping()
        bundle.text = second.pem
        await registry.ping()
        await registry.aclose()


@pytest.mark.parametrize(
    "text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
)
async def test_a_bundle_without_certificates_trusts_nobody(
    authorities: tuple[Authority, Authority], text: str
) -> None:
    first, _ = authorities
    async with a_server(first) as uri:
        registry = MLflowRegistry("default", uri, nobody, Bundle(text).read)
        with pytest.raises(CABundleInvalidError, match=r"ca\.crt .*'default'.*PEM"):
            await registry.ping()
        await registry.aclose()
