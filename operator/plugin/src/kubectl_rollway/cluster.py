"""The cluster as the commands see it: which one is meant, a handful of questions, and one write."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Object = dict[str, Any]
"""A Kubernetes object as the API server's JSON has it."""


@dataclass(frozen=True)
class Place:
    """What the command line says about where: each may be left open."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None

    def under(self, outer: "Place") -> "Place":
        """Take from another what is left open here."""
        return Place(
            self.kubeconfig or outer.kubeconfig,
            self.context or outer.context,
            self.namespace or outer.namespace,
        )


@dataclass(frozen=True)
class Complaint:
    """What the API server says against a manifest; the field is as it writes it, or empty."""

    field: str
    message: str


class Cluster(Protocol):
    """What the commands ask, and what they write."""

    @property
    def namespace(self) -> str:
        """The namespace that is meant where none is named."""

    def deployments(self, namespace: str | None) -> list[Object]:
        """List the ModelDeployments of a namespace, or of all."""

    def deployment(self, namespace: str, name: str) -> Object:
        """Get one ModelDeployment."""

    def revisions(self, namespace: str, name: str) -> list[Object]:
        """List the ControllerRevisions of a ModelDeployment."""

    def pods(self, namespace: str, name: str) -> list[Object]:
        """List the pods of a ModelDeployment."""

    def events(self, namespace: str, name: str) -> list[Object]:
        """List the Events about a ModelDeployment."""

    def annotate(self, namespace: str, name: str, annotations: Mapping[str, str]) -> None:
        """Set annotations of a ModelDeployment."""

    def complaints(self, manifest: Object) -> list[Complaint]:
        """Have the API server check a manifest without storing it."""

    def namespaces(self) -> list[str]:
        """List the names of all namespaces."""

    def listed(
        self, root: str, plural: str, namespace: str | None = None, **selectors: str
    ) -> list[Object] | None:
        """List any kind, of a namespace or of all; None where the API server does not know it."""

    def through(self, namespace: str, service: str, path: str, query: Mapping[str, str]) -> Object:
        """Get a path of a Service (`name:port`) through the API server."""


Connect = Callable[[Place], Cluster]
"""Finds the cluster that is meant; it is asked only later."""
