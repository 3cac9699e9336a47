"""The real servers that integration tests share: each is started once, by the first test that asks for it."""

from collections.abc import Iterator

import pytest

from rollway_testing.processes import MLflowServer, SeaweedFS


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """An S3 store with the buckets ``models`` and ``mlflow``."""
    with SeaweedFS(tmp_path_factory.mktemp("s3")) as store:
        store.create_bucket("models")
        store.create_bucket("mlflow")
        yield store


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory, s3: SeaweedFS) -> Iterator[MLflowServer]:
    """An MLflow tracking server whose proxied artifacts go to the bucket ``mlflow``."""
    with MLflowServer(tmp_path_factory.mktemp("mlflow"), s3, "s3://mlflow/") as server:
        yield server
