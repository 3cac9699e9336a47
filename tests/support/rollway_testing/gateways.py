"""A pretended Gateway: it passes no request on, but says of routes what one says, once it is let."""

from collections.abc import Mapping
from typing import Any, Final

from rollway_testing.kubernetes import ApiError, Kubernetes

Json = dict[str, Any]

HTTP: Final = "gateways/http"
GRPC: Final = "gateways/grpc"
URL: Final = "https://models.example.com"
ENVIRONMENT: Final = {
    "ROLLWAY_GATEWAY_HTTP": HTTP,
    "ROLLWAY_GATEWAY_GRPC": GRPC,
    "ROLLWAY_GATEWAY_URL": URL,
    "ROLLWAY_PERMITTED_HOSTS": "*.{namespace}.example.com",
}
"""By which an operator knows of both."""
ROUTES: Final = {"HTTPRoute": HTTP, "GRPCRoute": GRPC}
"""The kinds of routes, and what they join."""
_TRACK_HEADER: Final = "x-rollway-track"
_CONTROLLER: Final = "rollway.dev/pretended"


class PretendedGateway:
    """Takes the routes of a namespace over as they are now, but for those that it was told to refuse or to leave."""

    def __init__(self, api: Kubernetes, namespace: str) -> None:
        self._api, self._namespace = api, namespace
        self.refused: set[str] = set()
        """Names of routes that are not accepted."""
        self.left: set[str] = set()
        """Names of routes that nobody looks at."""

    def step(self) -> None:
        """Look at every route once."""
        for kind, gateway in ROUTES.items():
            for route in self._api.list(kind, self._namespace):
                name = route["metadata"]["name"]
                told = self._told(route, gateway)
                if name not in self.left and route.get("status") != told:
                    try:
                        self._api.set_status(kind, name, self._namespace, told)
                    except ApiError as error:
                        # One that is gone since it was listed needs no status.
                        if error.status != 404:
                            raise

    def _told(self, route: Json, gateway: str) -> Json:
        namespace, name = gateway.split("/")
        taken = route["metadata"]["name"] not in self.refused
        parts = (("Accepted", taken, "NotAllowedByListeners"), ("ResolvedRefs", True, ""))
        before = {
            condition["type"]: condition
            for parent in route.get("status", {}).get("parents", ())
            for condition in parent["conditions"]
        }
        conditions = [
            {
                "type": type_,
                "status": str(holds),
                "reason": type_ if holds else why,
                "message": "as it was told",
                "observedGeneration": route["metadata"]["generation"],
                "lastTransitionTime": before.get(type_, {}).get("lastTransitionTime", "2026-01-01T00:00:00Z"),
            }
            for type_, holds, why in parts
        ]
        (at,) = route["spec"]["parentRefs"]
        assert (at["namespace"], at["name"]) == (namespace, name), f"a route joins {at}"
        return {"parents": [{"parentRef": at, "controllerName": _CONTROLLER, "conditions": conditions}]}


def weights_of(route: Mapping[str, Any]) -> dict[str, int]:
    """Read how a route shares requests without the track header, by the names of Services."""
    for rule in route["spec"]["rules"]:
        headers = [header for match in rule["matches"] for header in match.get("headers", ())]
        if not any(header["name"] == _TRACK_HEADER for header in headers):
            return {backend["name"]: backend["weight"] for backend in rule["backendRefs"]}
    return {}
