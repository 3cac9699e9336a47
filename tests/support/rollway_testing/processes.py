"""Start and stop the real servers that tests talk to: an S3 store and an MLflow tracking server.

Each keeps its port and its data between ``stop()`` and ``start()``, so that a test can take a server away
and give it back.
"""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import boto3
from botocore.config import Config

_SECONDS_TO_START = 180.0
_LOG_LINES_SHOWN = 40
_SETTINGS_OF_THE_CALLER = ("MLFLOW_", "AWS_")


class ServerFailedError(RuntimeError):
    """A server ended, or did not become ready in time; the message holds the end of its log."""


def free_port() -> int:
    """Return a loopback port that nothing listens on, and that no test on this machine is given until this one ends.

    Seconds pass before a server listens on its port: time enough for another to be told the same one.
    """
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _PORTS and _reserve(port):
            _PORTS.add(port)
            return port


_PORTS: set[int] = set()
"""Those that this process was given; its own locks do not stop it."""


def _reserve(port: int) -> bool:
    """Lock the port's byte in a file that all processes of tests share; the lock ends with the process."""
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except BlockingIOError:
        return False
    return True


@cache
def _reservations() -> BinaryIO:
    return (Path(tempfile.gettempdir()) / f"rollway-ports-{os.getuid()}").open("ab")


class Server:
    """A child process that owns a folder, logs there and answers 200 at its health URLs when ready."""

    seconds_to_stop = 15.0

    def __init__(self, path: Path) -> None:
        """Keep data and log under ``path``, which is made if it is missing."""
        self.path = path
        self.path.mkdir(parents=True, exist_ok=True)
        self.log = path / "log.txt"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Return the command line that runs the server."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return the environment of the server: the caller's, without settings meant for a client."""
        return {
            key: value for key, value in os.environ.items() if not key.startswith(_SETTINGS_OF_THE_CALLER)
        }

    @property
    def health_urls(self) -> list[str]:
        """The URLs that all answer 200 once the server is ready."""
        raise NotImplementedError

    @property
    def running(self) -> bool:
        """Whether the process that ``start`` made is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the server and return when it is ready."""
        if self.running:
            return self
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.path,
                env=self.environment(),
                start_new_session=True,
            )
        try:
            self._await_ready(self._process)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the process that ``start`` made, with its children, and wait until it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        self._signal(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self.seconds_to_stop)
        self._signal(process, signal.SIGKILL)
        process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _SECONDS_TO_START
        while not all(map(_answers, self.health_urls)):
            if process.poll() is not None:
                raise ServerFailedError(
                    f"{self._name} ended with code {process.returncode}{self._end_of_log()}"
                )
            if time.monotonic() > deadline:
                raise ServerFailedError(
                    f"{self._name} was not ready after {_SECONDS_TO_START:.0f} s{self._end_of_log()}"
                )
            time.sleep(0.1)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _end_of_log(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
        return "\n".join(["; the end of its log:", *lines])

    @staticmethod
    def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        """Signal the process group of ``process``, which exists as long as one member of it lives."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


class SeaweedFS(Server):
    """An S3 store that asks for credentials."""

    seconds_to_stop = 2.0  # its filer waits for the end of streams that its own S3 gateway holds open
    access_key = "rollway-test"
    secret_key = "rollway-test-secret"

    def __init__(self, path: Path) -> None:
        """Keep the store's volumes under ``path``."""
        super().__init__(path)
        self._ports = {
            name: free_port()
            for name in (
                "master.port",
                "master.port.grpc",
                "volume.port",
                "volume.port.grpc",
                "filer.port",
                "filer.port.grpc",
                "s3.port",
                "s3.port.grpc",
            )
        }

    @property
    def endpoint(self) -> str:
        """The URL of the S3 API."""
        return f"http://127.0.0.1:{self._ports['s3.port']}"

    @property
    def health_urls(self) -> list[str]:
        """The S3 gateway's health, and the master's answer that a volume could be written."""
        return [f"{self.endpoint}/healthz", f"http://127.0.0.1:{self._ports['master.port']}/dir/assign"]

    @property
    def client_environment(self) -> dict[str, str]:
        """The variables by which MLflow and boto3 find this store."""
        return {
            "MLFLOW_S3_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def command(self) -> list[str]:
        """Return one process that holds master, volumes, filer and S3 gateway."""
        data = self.path / "data"
        data.mkdir(exist_ok=True)
        return [
            str(Path(sys.executable).with_name("weed")),
            "server",
            f"-dir={data}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            "-master.electionTimeout=1s",
            "-master.volumeSizeLimitMB=64",
            "-volume.max=50",
            "-volume.preStopSeconds=0",
            "-s3",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",
            *(f"-{name}={port}" for name, port in self._ports.items()),
        ]

    def environment(self) -> dict[str, str]:
        """Return the environment, which names the store's one identity."""
        return super().environment() | {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }

    def create_bucket(self, name: str) -> None:
        """Make a bucket; one that exists already is left as it is."""
        client = self.client()
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=name)

    def client(self) -> Any:
        """Return a boto3 client of this store."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 5}),
        )


class MLflowServer(Server):
    """A tracking server on SQLite that proxies artifacts, into a bucket or into its own folder."""

    def __init__(
        self, path: Path, s3: SeaweedFS | None = None, artifacts_destination: str | None = None
    ) -> None:
        """Keep the database under ``path``, and proxied artifacts too where no destination is given."""
        super().__init__(path)
        self._s3 = s3
        self._destination = artifacts_destination or str(path / "artifacts")
        self._port = free_port()

    @property
    def uri(self) -> str:
        """The tracking URI."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def health_urls(self) -> list[str]:
        """The server's own health check."""
        return [f"{self.uri}/health"]

    @property
    def client_environment(self) -> dict[str, str]:
        """The variables by which a client finds this server, and the S3 store beside it."""
        store = self._s3.client_environment if self._s3 else {}
        return {"MLFLOW_TRACKING_URI": self.uri} | store

    def command(self) -> list[str]:
        """Return the tracking server with one worker."""
        return [
            *(sys.executable, "-m", "mlflow", "server"),
            *("--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{self.path / 'mlflow.db'}"),
            *("--serve-artifacts", "--artifacts-destination", self._destination),
        ]

    def environment(self) -> dict[str, str]:
        """Return the environment, with the S3 store's credentials where there is one."""
        store = self._s3.client_environment if self._s3 else {}
        # Without the second, eight more processes start for jobs that nobody submits.
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        return super().environment() | store | quiet


class Moto(Server):
    """Stand-ins for AWS's S3, IAM and STS, which judge signatures and policies once they are told to."""

    region = "eu-west-3"

    def __init__(self, path: Path) -> None:
        """Keep the log under ``path``; all else is in memory."""
        super().__init__(path)
        self._port = free_port()

    @property
    def endpoint(self) -> str:
        """The URL of every service."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def health_urls(self) -> list[str]:
        """The page that shows what is stored."""
        return [f"{self.endpoint}/moto-api/data.json"]

    def command(self) -> list[str]:
        """Return the server."""
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._port)]

    def client(self, service: str) -> Any:
        """Return a boto3 client of the account's owner."""
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            aws_access_key_id="owner",
            aws_secret_access_key="owner",
            region_name=self.region,
        )

    def judge_after(self, requests: int) -> None:
        """Let so many more requests pass, and judge each one after them."""
        request = urllib.request.Request(
            f"{self.endpoint}/moto-api/reset-auth",
            data=str(requests).encode(),
            headers={"content-type": "text/plain"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
