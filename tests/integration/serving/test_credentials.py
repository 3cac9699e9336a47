"""The store's credentials are with `fetch` alone, and it tells them to nobody."""

from collections.abc import Iterator

import pytest

from rollway_testing.canary import Canary, Echo

from .conftest import NewPod


@pytest.fixture(params=["token", "password"])
def canary(request: pytest.FixtureRequest) -> Canary:
    """Credentials of this test's own."""
    return Canary.token() if request.param == "token" else Canary.password()


@pytest.fixture
def echo(canary: Canary) -> Iterator[Echo]:
    """A tracking server that repeats them in each of its answers."""
    server = Echo("", canary)
    yield server
    server.close()


@pytest.mark.parametrize("fault", ["refused", "forbidden", "redirect", "unusable"])
def test_what_a_tracking_server_repeats_is_not_told_further(
    new_pod: NewPod, echo: Echo, canary: Canary, fault: str
) -> None:
    echo.fault = fault
    pod = new_pod(
        environment={
            "ROLLWAY_MODEL_URI": "mlflow-artifacts:/1/model",
            "ROLLWAY_ARTIFACT_PREFIX": "mlflow-artifacts:/",
            "ROLLWAY_TRACKING_URI": echo.uri,
            **{f"ROLLWAY_TRACKING_{key.upper()}": value for key, value in canary.data.items()},
        }
    )
    assert pod.fetch().wait(60) == 1
    assert echo.shown[fault], "the credentials were shown to the server"
    assert pod.termination["reason"] in ("FetchFailed", "NotAModel")
    shown = pod.log + pod.termination_log.read_text()
    assert {form for form in canary.forms if form in shown} == set()
