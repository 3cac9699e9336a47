"""Who gives `fetch` its credentials, whose certificates it believes, and where it lets itself be sent."""

import asyncio
import json
import logging
import threading
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import pytest

from rollway_serving.errors import FetchFailed
from rollway_serving.fetch.identity import Role, WebIdentity
from rollway_serving.fetch.paths import Location
from rollway_serving.fetch.sources import Keys, RemoteFile, S3Source, Transient
from rollway_serving.fetch.trust import Trust
from rollway_testing.processes import MLflowServer, Moto, SeaweedFS, free_port
from rollway_testing.tls import TlsDoor

from .conftest import NewPod, Trained
from .test_fetch import contents, digest_of, fetched, put_folder, s3_environment

CANARY = "eyJhbGciOiJSUzI1NiJ9.canary-token-canary.c2lnbmF0dXJl"
ARN = "arn:aws:iam::123456789012:role/team-a"
ANSWER = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Audience>sts.amazonaws.com</Audience><Credentials>
<SessionToken>canary-session-token</SessionToken><SecretAccessKey>canary-secret-key</SecretAccessKey>
<Expiration>{until}</Expiration><AccessKeyId>ASIACANARY</AccessKeyId></Credentials>
</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""
REFUSAL = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
<Code>{code}</Code><Message>{message}</Message></Error><RequestId>1</RequestId></ErrorResponse>"""


@dataclass
class Answering:
    """An HTTP server that gives one answer to all, and keeps what it was asked."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str], str]] = field(default_factory=list)
    url: str = ""

    def serve(self) -> ThreadingHTTPServer:
        answering = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                sent = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
                asked = {name.lower(): value for name, value in self.headers.items()}
                answering.asked.append((self.path, asked, sent))
                self.send_response(answering.status)
                for name, value in answering.headers.items():
                    self.send_header(name, value.replace("PATH", self.path))
                self.send_header("content-length", str(len(answering.body)))
                self.end_headers()
                self.wfile.write(answering.body)

            do_POST = do_GET  # noqa: N815 - the name that http.server looks for

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server


@pytest.fixture
def answering() -> Iterator[Callable[..., Answering]]:
    servers: list[ThreadingHTTPServer] = []

    def make(**options: Any) -> Answering:
        made = Answering(**options)
        servers.append(made.serve())
        return made

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


def good_until(moment: datetime) -> bytes:
    return ANSWER.format(until=moment.strftime("%Y-%m-%dT%H:%M:%SZ")).encode()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{CANARY}\n")
    return file


def role(sts: str, token_file: Path) -> Role:
    variables = {
        "AWS_ROLE_ARN": ARN,
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token_file),
        "AWS_ROLE_SESSION_NAME": "fraud-7c9f12ab",
        "ROLLWAY_STS_ENDPOINT": sts,
    }
    found = Role.from_environment(variables, "eu-west-3")
    assert found is not None
    return found


# --------------------------------------------------------------------------------------------------- workload identity


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """AWS with one role, which may read what is under ``team-a/`` in the bucket ``models``."""
    with Moto(tmp_path_factory.mktemp("moto")) as server:
        server.client("s3").create_bucket(
            Bucket="models", CreateBucketConfiguration={"LocationConstraint": server.region}
        )
        iam = server.client("iam")
        iam.create_role(RoleName="team-a", AssumeRolePolicyDocument="{}")
        statements = [
            {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::models"},
            {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::models/team-a/*"},
        ]
        iam.put_role_policy(
            RoleName="team-a",
            PolicyName="read",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": statements}),
        )
        yield server


def moto_environment(moto: Moto, prefix: str, token_file: Path) -> dict[str, str]:
    return {
        "ROLLWAY_MODEL_URI": f"s3://models/{prefix}",
        "ROLLWAY_ARTIFACT_PREFIX": "s3://models",
        "ROLLWAY_ARTIFACT_ENDPOINT": moto.endpoint,
        "ROLLWAY_ARTIFACT_REGION": moto.region,
        "ROLLWAY_STS_ENDPOINT": moto.endpoint,
        "AWS_ROLE_ARN": ARN,
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token_file),
        "AWS_ROLE_SESSION_NAME": "fraud-7c9f12ab",
    }


@pytest.mark.parametrize("folder", ["team-a", "team-b"])
def test_a_role_reads_its_own_prefix_and_no_other(
    new_pod: NewPod, moto: Moto, frame_model: Trained, token_file: Path, folder: str
) -> None:
    prefix = f"{folder}/{uuid.uuid4().hex}"
    moto.judge_after(10**6)
    for name, data in contents(frame_model.folder).items():
        moto.client("s3").put_object(Bucket="models", Key=f"{prefix}/{name}", Body=data)
    moto.judge_after(1)  # STS takes no signature
    pod = new_pod(environment=moto_environment(moto, prefix, token_file))
    code = fetched(pod)
    assert CANARY not in pod.log
    assert f"AWS gave the role {ARN} until" in pod.log
    if folder == "team-a":
        assert code == 0, pod.log
        assert pod.termination["digest"] == digest_of(frame_model.folder)
        assert contents(pod.model) == contents(frame_model.folder)
    else:
        assert code == 1
        assert pod.termination["reason"] == "FetchFailed"
        assert "S3 refuses the credentials" in pod.termination["message"]
        assert contents(pod.model) == {}


async def test_the_request_is_the_one_that_sts_documents(
    answering: Callable[..., Answering], token_file: Path
) -> None:
    sts = answering(body=good_until(datetime.now(UTC) + timedelta(hours=1)))
    identity = WebIdentity(role(sts.url, token_file), Trust())
    await identity.renew()
    await identity.renew()
    await identity.close()
    ((path, headers, sent),) = sts.asked
    assert path == "/"  # the token is in no URL
    assert "authorization" not in headers
    assert dict(urllib.parse.parse_qsl(sent)) == {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": ARN,
        "RoleSessionName": "fraud-7c9f12ab",
        "WebIdentityToken": CANARY,
    }
    found = identity()
    assert (found["access_key_id"], found["secret_access_key"], found.get("token")) == (
        "ASIACANARY",
        "canary-secret-key",
        "canary-session-token",
    )


async def test_credentials_are_renewed_before_they_expire(
    answering: Callable[..., Answering], token_file: Path
) -> None:
    sts = answering(body=good_until(datetime.now(UTC) + timedelta(minutes=4)))
    identity = WebIdentity(role(sts.url, token_file), Trust())
    await identity.renew()
    token_file.write_text("rotated")  # noqa: ASYNC240 - as the kubelet does, meanwhile
    sts.body = good_until(datetime.now(UTC) + timedelta(hours=1)).replace(b"ASIACANARY", b"ASIASECOND")
    await identity.renew()
    await identity.renew()
    await identity.close()
    assert [dict(urllib.parse.parse_qsl(sent))["WebIdentityToken"] for _, _, sent in sts.asked] == [
        CANARY,
        "rotated",
    ]
    assert identity()["access_key_id"] == "ASIASECOND"


@pytest.mark.parametrize(
    ("status", "code", "fix"),
    [
        (403, "AccessDenied", "its trust policy must allow sts:AssumeRoleWithWebIdentity"),
        (400, "ExpiredTokenException", "compare the node's clock"),
        (400, "InvalidIdentityToken", "with the audience sts.amazonaws.com"),
        (403, "RegionDisabledException", "stsEndpoint"),
        (400, "ValidationError", "correct the ModelRegistry's artifacts[].roleARN"),
        (400, "SomethingNew", "artifacts[].roleARN"),
    ],
)
async def test_a_refusal_names_the_fix(
    answering: Callable[..., Answering], token_file: Path, status: int, code: str, fix: str
) -> None:
    sts = answering(status=status, body=REFUSAL.format(code=code, message="no").encode())
    identity = WebIdentity(role(sts.url, token_file), Trust())
    with pytest.raises(FetchFailed) as failure:
        await identity.renew()
    await identity.close()
    message = str(failure.value)
    assert message.startswith(f"AWS does not give the role {ARN}: ")
    assert fix in message[:300], "the operator shows 300 characters"
    assert message.endswith(f"(HTTP {status} {code}: no)")


def test_a_refusal_is_nobodys_fault_and_repeats_no_token(
    new_pod: NewPod, answering: Callable[..., Answering], token_file: Path
) -> None:
    said = f"Incorrect token audience in {CANARY}\nsecond line"
    sts = answering(status=400, body=REFUSAL.format(code="InvalidIdentityToken", message=said).encode())
    environment = {
        "ROLLWAY_MODEL_URI": "s3://models/m",
        "ROLLWAY_ARTIFACT_PREFIX": "s3://models",
        "ROLLWAY_ARTIFACT_ENDPOINT": sts.url,
        "ROLLWAY_STS_ENDPOINT": sts.url,
        "AWS_ROLE_ARN": ARN,
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token_file),
    }
    pod = new_pod(environment=environment)
    assert fetched(pod) == 1
    assert len(sts.asked) == 1  # once, and no request to the store
    assert pod.termination["reason"] == "FetchFailed"
    assert "InvalidIdentityToken: Incorrect token audience" in pod.termination["message"]
    for text in (pod.log, pod.termination["message"]):
        assert "canary" not in text
        assert "Traceback" not in text


HOSTILE = [
    b"",
    b"no xml",
    b"<a>" * 10_000,
    b"<a/>" * 100_000,
    f'<!DOCTYPE a SYSTEM "file:///etc/passwd">{good_until(datetime.now(UTC)).decode()}'.encode("utf-16"),
    b'<!DOCTYPE a [<!ENTITY b "ASIA">]>' + good_until(datetime.now(UTC)).replace(b"ASIACANARY", b"&b;"),
    good_until(datetime.now(UTC)).replace(b"canary-secret-key", b""),
    good_until(datetime.now(UTC)).replace(b"canary-session-token", b"a&#10;b"),
    ANSWER.format(until="soon").encode(),
]


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
async def test_an_answer_that_is_none_is_asked_for_again(
    answering: Callable[..., Answering], token_file: Path, body: bytes
) -> None:
    sts = answering(body=body)
    identity = WebIdentity(role(sts.url, token_file), Trust())
    with pytest.raises(Transient, match="STS answer"):
        await identity.renew()
    await identity.close()
    assert len(sts.asked) == 1


@pytest.mark.parametrize(
    ("status", "code"),
    [(503, ""), (500, "InternalFailure"), (400, "Throttling"), (400, "IDPCommunicationError")],
)
async def test_an_outage_of_sts_is_waited_out(
    answering: Callable[..., Answering], token_file: Path, status: int, code: str
) -> None:
    sts = answering(status=status, body=REFUSAL.format(code=code, message="later").encode())
    identity = WebIdentity(role(sts.url, token_file), Trust())
    with pytest.raises(Transient, match=f"HTTP {status}"):
        await identity.renew()
    await identity.close()


async def test_a_redirect_of_sts_is_not_followed(
    answering: Callable[..., Answering], token_file: Path
) -> None:
    elsewhere = answering(body=good_until(datetime.now(UTC) + timedelta(hours=1)))
    sts = answering(status=307, headers={"location": elsewhere.url})
    identity = WebIdentity(role(sts.url, token_file), Trust())
    with pytest.raises(FetchFailed, match="redirect"):
        await identity.renew()
    await identity.close()
    assert (len(sts.asked), elsewhere.asked) == (1, [])


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (None, "cannot be read: No such file"),
        (b"", "is no token"),
        (b"\xff", "is no token"),
        (b"a" * 20_000, "is no token"),
    ],
)
async def test_a_missing_token_is_said(tmp_path: Path, token: bytes | None, said: str) -> None:
    file = tmp_path / "token"
    if token is not None:
        file.write_bytes(token)
    identity = WebIdentity(role("http://127.0.0.1:1", file), Trust())
    with pytest.raises(FetchFailed, match=said):
        await identity.renew()
    await identity.close()


def test_the_defaults_are_those_of_aws(token_file: Path) -> None:
    variables = {"AWS_ROLE_ARN": ARN, "AWS_WEB_IDENTITY_TOKEN_FILE": str(token_file)}
    found = [Role.from_environment(variables, region) for region in ("eu-west-3", None)]
    assert [each.endpoint for each in found if each] == [
        "https://sts.eu-west-3.amazonaws.com",
        "https://sts.us-east-1.amazonaws.com",
    ]
    assert Role.from_environment({}, None) is None
    with pytest.raises(FetchFailed, match="AWS_WEB_IDENTITY_TOKEN_FILE"):
        Role.from_environment({"AWS_ROLE_ARN": ARN}, None)


def test_no_log_of_the_http_client_shows_what_is_sent(
    answering: Callable[..., Answering], token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sts = answering(body=good_until(datetime.now(UTC) + timedelta(hours=1)))

    async def renew() -> None:
        identity = WebIdentity(role(sts.url, token_file), Trust())
        await identity.renew()
        await identity.close()

    with caplog.at_level(logging.DEBUG):
        asyncio.run(renew())
    assert "AWS gave the role" in caplog.text
    assert "canary" not in caplog.text.lower()


# ------------------------------------------------------------------------------------------------------- certificates


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[[TlsDoor], dict[str, str]]:
    return lambda door: {"ROLLWAY_CA_BUNDLE": str(door.write_bundle(tmp_path / "ca.crt"))}


def test_a_private_authority_is_believed_for_s3(
    new_pod: NewPod, s3: SeaweedFS, frame_model: Trained, bundle: Callable[[TlsDoor], dict[str, str]]
) -> None:
    prefix = f"tls/{uuid.uuid4().hex}"
    put_folder(s3, frame_model.folder, prefix)
    with TlsDoor(s3.endpoint) as door:
        behind_tls = s3_environment(s3, prefix) | {"ROLLWAY_ARTIFACT_ENDPOINT": door.url}
        pod = new_pod(environment=behind_tls | bundle(door))
        assert fetched(pod) == 0, pod.log
        assert door.handshakes > 0
        assert contents(pod.model) == contents(frame_model.folder)
        assert_not_believed(new_pod, behind_tls, "S3")


def test_a_private_authority_is_believed_for_mlflow(
    new_pod: NewPod,
    mlflow_server: MLflowServer,
    frame_model: Trained,
    bundle: Callable[[TlsDoor], dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    mlflow.set_tracking_uri(mlflow_server.uri)
    mlflow.set_experiment("tls")
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(frame_model.folder), "model")
    with TlsDoor(mlflow_server.uri) as door:
        behind_tls = {
            "ROLLWAY_MODEL_URI": f"{run.info.artifact_uri}/model",
            "ROLLWAY_ARTIFACT_PREFIX": "mlflow-artifacts:/",
            "ROLLWAY_TRACKING_URI": door.url,
        }
        pod = new_pod(environment=behind_tls | bundle(door))
        assert fetched(pod) == 0, pod.log
        assert door.handshakes > 0
        assert contents(pod.model) == contents(frame_model.folder)
        assert_not_believed(new_pod, behind_tls, "the tracking server")


def assert_not_believed(new_pod: NewPod, environment: dict[str, str], who: str) -> None:
    pod = new_pod(environment=environment)
    assert fetched(pod, 30) == 1, "no retry helps"
    assert pod.termination["reason"] == "FetchFailed"
    message = pod.termination["message"]
    assert message.startswith(f"{who}'s certificate is not trusted")
    assert "artifacts[].caBundleRef" in message[:300], "the operator shows 300 characters"


async def test_a_private_authority_is_believed_for_sts(
    answering: Callable[..., Answering], token_file: Path, tmp_path: Path
) -> None:
    sts = answering(body=good_until(datetime.now(UTC) + timedelta(hours=1)))
    with TlsDoor(sts.url) as door:
        trust = Trust.load(str(door.write_bundle(tmp_path / "ca.crt")))
        identity = WebIdentity(role(door.url, token_file), trust)
        await identity.renew()
        await identity.close()
        assert len(sts.asked) == 1
        identity = WebIdentity(role(door.url, token_file), Trust())
        with pytest.raises(FetchFailed, match="STS's certificate is not trusted"):
            await identity.renew()
        await identity.close()
        assert len(sts.asked) == 1, "the token was sent to a stranger"


async def test_a_certificate_for_another_name_is_not_believed(
    answering: Callable[..., Answering], token_file: Path, tmp_path: Path
) -> None:
    sts = answering(body=good_until(datetime.now(UTC) + timedelta(hours=1)))
    with TlsDoor(sts.url, name="another.example.com") as door:
        trust = Trust.load(str(door.write_bundle(tmp_path / "ca.crt")))
        identity = WebIdentity(role(door.url, token_file), trust)
        with pytest.raises(FetchFailed, match=r"not valid for '127\.0\.0\.1'"):
            await identity.renew()
        await identity.close()
    assert sts.asked == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            None,
            "cannot be read (No such file or directory): the ConfigMap of caBundleRef needs the key ca.crt",
        ),
        (b"", "holds no certificate"),
        (b"certificate", "holds no certificate"),
        (b"\xff\xfe", "holds no certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "holds no certificate"),
    ],
)
def test_a_bundle_that_is_none_is_said(tmp_path: Path, text: bytes | None, said: str) -> None:
    file = tmp_path / "ca.crt"
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(FetchFailed) as failure:
        Trust.load(str(file))
    assert said in str(failure.value)


def test_a_bundle_may_hold_several_authorities(tmp_path: Path) -> None:
    one, two = TlsDoor("http://127.0.0.1:1"), TlsDoor("http://127.0.0.1:1")
    file = tmp_path / "ca.crt"
    file.write_bytes(one.authority.cert_pem.bytes() + two.authority.cert_pem.bytes())
    context = Trust.load(str(file)).context()
    public = len(Trust().context().get_ca_certs())
    assert public > 10
    assert len(context.get_ca_certs()) == public + 2
    for door in (one, two):
        door.close()


# ---------------------------------------------------------------------------------------------------------- redirects
# obstore's client follows redirects and cannot be told not to: it has one door, which leads to one host.


def source(endpoint: str, trust: Trust | None = None) -> S3Source:
    keys = Keys("AKIACANARY", "canary-secret-key")
    location = Location.parse("s3://models/m")
    return S3Source(location, endpoint=endpoint, region=None, keys=keys, trust=trust or Trust())


async def refusal(store: S3Source) -> str:
    with pytest.raises(FetchFailed) as failure:
        await store.files()
    await store.close()
    return str(failure.value)


async def test_a_redirect_to_another_host_is_not_followed(answering: Callable[..., Answering]) -> None:
    elsewhere = answering(status=404)
    store = answering(status=307, headers={"location": f"{elsewhere.url}PATH"})
    message = await refusal(source(store.url))
    assert "authorization" in store.asked[0][1]
    assert (len(store.asked), elsewhere.asked) == (1, [])
    assert message.startswith(f"the S3 endpoint redirects to {elsewhere.url.removeprefix('http://')}, which")
    assert "artifacts[].endpoint" in message


async def test_a_redirect_of_a_read_is_not_followed_either(answering: Callable[..., Answering]) -> None:
    elsewhere = answering(body=b"x" * 10)
    store = answering(status=302, headers={"location": f"{elsewhere.url}PATH"})
    opened = source(store.url)
    with pytest.raises(FetchFailed, match="which is not followed"):
        async for _ in opened.read(RemoteFile("MLmodel", 10, None), 0, 10):
            pass
    await opened.close()
    assert (len(store.asked), elsewhere.asked) == (1, [])


async def test_a_redirect_from_one_tls_host_to_another_is_not_followed(
    answering: Callable[..., Answering], tmp_path: Path
) -> None:
    elsewhere = answering(status=404)
    with TlsDoor(elsewhere.url) as other:
        store = answering(status=307, headers={"location": f"{other.url}PATH"})
        with TlsDoor(store.url) as door:
            one, two = door.authority.cert_pem.bytes(), other.authority.cert_pem.bytes()
            (tmp_path / "ca.crt").write_bytes(one + two)
            message = await refusal(source(door.url, Trust.load(str(tmp_path / "ca.crt"))))
    assert "redirects to 127.0.0.1:" in message
    assert (len(store.asked), elsewhere.asked, other.handshakes) == (1, [], 0)


async def test_a_redirect_does_not_lead_from_tls_to_plain_text(
    answering: Callable[..., Answering], tmp_path: Path
) -> None:
    elsewhere = answering(status=404)
    store = answering(status=307, headers={"location": f"{elsewhere.url}PATH"})
    with TlsDoor(store.url) as door:
        opened = source(door.url, Trust.load(str(door.write_bundle(tmp_path / "ca.crt"))))
        with pytest.raises((Transient, FetchFailed)):
            await opened.files()
        await opened.close()
    assert (len(store.asked), elsewhere.asked) == (1, [])


async def test_a_store_that_is_away_is_said_to_be_so() -> None:
    opened = source(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Transient, match=r"S3: cannot connect to 127\.0\.0\.1:\d+: .*Connect call failed"):
        await opened.files()
    await opened.close()
