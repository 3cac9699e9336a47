"""The cluster's certificate authority, its components' certificates and their kubeconfig files."""

import base64
import json
import os
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rollway_cluster.layout import Layout

VALID_FOR = timedelta(days=3650)
CLIENTS = {
    # file name: (common name, organisation)
    "admin": ("rollway-admin", "system:masters"),
    "apiserver-kubelet-client": ("kube-apiserver-kubelet-client", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", None),
    "scheduler": ("system:kube-scheduler", None),
    "kube-proxy": ("system:kube-proxy", None),
    "front-proxy-client": ("front-proxy-client", None),
}
WITH_KUBECONFIG = ("admin", "controller-manager", "scheduler", "kube-proxy", "kubelet")


def ensure(layout: Layout) -> None:
    """Make everything under ``pki``, and the administrator's kubeconfig, unless it is there already."""
    if layout.kubeconfig.exists():
        return
    layout.pki.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = _Authority(layout.pki)
    local = IPv4Address("127.0.0.1")
    node = IPv4Address(layout.node_address)
    authority.server(
        "apiserver",
        names=["localhost", "kubernetes"]
        + [f"kubernetes.default{end}" for end in ("", ".svc", ".svc.cluster.local")],
        addresses=[local, node, IPv4Address(layout.api_service_address)],
    )
    authority.server("kubelet-server", names=[layout.node], addresses=[local, node])
    for name, (common_name, organisation) in CLIENTS.items():
        authority.client(name, common_name, organisation)
    authority.client("kubelet", f"system:node:{layout.node}", "system:nodes")
    signer = ec.generate_private_key(ec.SECP256R1())
    _write_key(layout.pki / "service-accounts.key", signer)
    (layout.pki / "service-accounts.pub").write_bytes(
        signer.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    for name in WITH_KUBECONFIG:
        _write_secret(layout.pki / f"{name}.kubeconfig", kubeconfig(layout, name).encode())
    # Written last: its presence says that everything else is complete.
    _write_secret(layout.kubeconfig, kubeconfig(layout, "admin").encode())


def kubeconfig(layout: Layout, user: str) -> str:
    """A kubeconfig file for one of the clients; JSON, which is YAML."""

    def encoded(name: str) -> str:
        return base64.b64encode((layout.pki / name).read_bytes()).decode()

    context = layout.context
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": context,
                "cluster": {"server": layout.server, "certificate-authority-data": encoded("ca.crt")},
            }
        ],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": encoded(f"{user}.crt"),
                    "client-key-data": encoded(f"{user}.key"),
                },
            }
        ],
        "contexts": [{"name": context, "context": {"cluster": context, "user": user}}],
        "current-context": context,
    }
    return json.dumps(document, indent=2) + "\n"


class _Authority:
    """Signs certificates into one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _subject("rollway-cluster")
        certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(authority=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        _write_key(folder / "ca.key", self._key)
        (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, name: str, names: list[str], addresses: list[IPv4Address]) -> None:
        """Sign for a listener."""
        alternatives = x509.SubjectAlternativeName(
            [*(x509.DNSName(each) for each in names), *(x509.IPAddress(each) for each in addresses)]
        )
        self._sign(name, _subject(names[0]), ExtendedKeyUsageOID.SERVER_AUTH, alternatives)

    def client(self, name: str, common_name: str, organisation: str | None) -> None:
        """Sign for a user."""
        self._sign(name, _subject(common_name, organisation), ExtendedKeyUsageOID.CLIENT_AUTH, None)

    def _sign(
        self,
        name: str,
        subject: x509.Name,
        purpose: x509.ObjectIdentifier,
        alternatives: x509.SubjectAlternativeName | None,
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            self._builder(subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if alternatives is not None:
            builder = builder.add_extension(alternatives, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        _write_key(self._folder / f"{name}.key", key)
        (self._folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + VALID_FOR)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )


def _subject(common_name: str, organisation: str | None = None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organisation:
        parts.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
    return x509.Name(parts)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    _write_secret(
        path,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        ),
    )


def _write_secret(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
