"""What is worked on and when: events and a shared resync put keys on a queue, workers make the passes.

The resync lists every kind once and looks at nothing but versions. Where they are those at which a pass found nothing
to write, only the registry is asked; for every other a pass reads again: nothing rests on what a resync saw.
"""

import asyncio
import base64
import binascii
import logging
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

from rollway_operator.api.v1alpha1 import ModelRegistry
from rollway_operator.apply import apply_status
from rollway_operator.cluster import Cluster
from rollway_operator.domain import Key, Object, Versions
from rollway_operator.errors import (
    ClusterError,
    ConflictError,
    EndingError,
    ForbiddenError,
    NotLeaderError,
    TemporaryError,
)
from rollway_operator.evidence import Evidence, Queries
from rollway_operator.gateway_source import GatewayRequests
from rollway_operator.health import Health
from rollway_operator.labels import GROUP
from rollway_operator.metrics_source import PodMetrics
from rollway_operator.notify import Notice
from rollway_operator.observe import Observer, now, versions
from rollway_operator.prometheus import Prometheus
from rollway_operator.prometheus_source import Fallback, PrometheusMetrics
from rollway_operator.queue import WorkQueue
from rollway_operator.reconcile import Context, Look, look_again, reconcile
from rollway_operator.resolve import Resolver, registry_followed, registry_status
from rollway_operator.series import Series
from rollway_operator.settings import Settings
from rollway_operator.telemetry import RECONCILE_SECONDS, RECONCILES, RESYNCED, forget_registry, measure_queue

_logger = logging.getLogger(__name__)

_WORKERS: Final = 32
"""A pass mostly waits for answers; one slow registry must not hold up the others."""

_POLLS_PER_SECOND: Final = 20.0
"""Passes that only see whether pods came or went: with many roll-outs at once each is looked at less often."""

_LONGEST_POLL_SECONDS: Final = 60.0

_CRDS: Final = ("modeldeployments", "modelregistries")
_CRD_RETRY_SECONDS: Final = 5.0


class Controller:
    """Keeps every ModelDeployment and ModelRegistry right, from `start` to `stop`: while this replica leads."""

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        health: Health,
        series: Series,
        post: Callable[[Notice], None],
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._health = health
        self._series = series
        self._resolver = Resolver(self._registry, self._namespace_labels, self._secret, self._config_map)
        self._observer = Observer(cluster, settings.platform.optional_kinds)
        self._evidence = _evidence(settings)
        self._context = Context(
            cluster, self._observer, self._resolver, settings.platform, self._evidence, post
        )
        self._deployments = WorkQueue(self._deployment_pass, _WORKERS)
        self._registries = WorkQueue(self._registry_pass, 2)
        self._seen: dict[Key, Mapping[str, Any]] = {}
        self._follows: dict[Key, str] = {}
        self._looks: dict[Key, Look] = {}
        self._under_way: set[Key] = set()
        self._news: set[Key] = set()
        self._known_registries: dict[str, Object] = {}
        self._known_labels: dict[str, Mapping[str, str]] = {}
        self._resyncing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Wait for the CRDs, then work until `stop`."""
        while not await self._crds_are_there():
            self._health.hindered = "the CustomResourceDefinitions are missing"
            await asyncio.sleep(_CRD_RETRY_SECONDS)
        self._health.hindered = ""
        with suppress(ClusterError):  # a resync finds it out later
            await self._observer.discover()
        measure_queue(self._deployments)
        self._deployments.start()
        self._registries.start()
        self._resyncing = asyncio.create_task(self._resync_for_ever(), name="resync")
        _logger.info("started")

    async def stop(self) -> None:
        """Start no more passes, and cut those that run short between two writes."""
        self._health.hindered = ""
        if self._resyncing:
            self._resyncing.cancel()
            await asyncio.gather(self._resyncing, return_exceptions=True)
        await asyncio.gather(self._deployments.stop(), self._registries.stop())
        await asyncio.gather(self._resolver.aclose(), self._evidence.aclose())
        # Last: until here events that were on their way may come.
        self._series.clear()
        _logger.info("stopped")

    # ---------------------------------------------------------------------------------------------------------- events

    def deployment_changed(self, body: Object) -> None:
        """Have a ModelDeployment worked on, unless nothing changed that a person or Git writes."""
        key, asked = _key(body), _asked(body)
        self._series.deployment_seen(body)
        self._follows[key] = registry_followed(body)
        if self._seen.get(key) == asked:
            return
        self._seen[key] = asked
        self._add_afresh(key)

    def deployment_gone(self, body: Object) -> None:
        """Forget a ModelDeployment; its children go by owner reference."""
        self._forget(_key(body))

    def registry_changed(self, body: Object) -> None:
        """Have a ModelRegistry looked at, and all that follow it, unless only its status changed."""
        self._series.registry_seen(body)
        name = body["metadata"]["name"]
        before, self._known_registries[name] = self._known_registries.get(name), body
        if before is None or _asked(before) != _asked(body):
            self._registries.add(name)
            self._add_followers(name)

    def registry_gone(self, body: Object) -> None:
        """Forget a ModelRegistry; what followed it says so."""
        name = body["metadata"]["name"]
        self._known_registries.pop(name, None)
        self._registries.forget(name)
        self._series.registry_gone(name)
        forget_registry(name)
        self._add_followers(name)

    def _add_followers(self, registry: str) -> None:
        for key, followed in self._follows.items():
            if followed == registry:
                self._add_afresh(key)

    def _add_afresh(self, key: Key) -> None:
        """Have a pass that rests on nothing seen before."""
        self._looks.pop(key, None)
        self._news.add(key)
        self._deployments.add(key)

    def _forget(self, key: Key) -> None:
        for store in (self._seen, self._follows, self._looks):
            store.pop(key, None)
        for names in (self._news, self._under_way):
            names.discard(key)
        self._evidence.forget(key)
        self._deployments.forget(key)
        self._series.deployment_gone(key)

    # ---------------------------------------------------------------------------------------------------------- passes

    async def _deployment_pass(self, key: Key) -> timedelta | None:
        where = {"object": f"{key.namespace}/{key.name}"}
        try:
            with RECONCILE_SECONDS.time():
                delay = await self._reconcile(key)
        except ConflictError as error:
            RECONCILES.labels("conflict").inc()
            _logger.debug("%s; the pass runs again", error, extra=where)
            raise
        except NotLeaderError as error:
            RECONCILES.labels("not_leader").inc()
            _logger.debug("%s", error, extra=where)
            raise
        except EndingError as error:
            _logger.debug("%s", error, extra=where)
            delay = None
        except TemporaryError as error:
            RECONCILES.labels("error").inc()
            _logger.warning("%s", error, extra=where)
            raise
        except Exception:
            RECONCILES.labels("error").inc()
            _logger.exception("the pass failed", extra=where)
            raise
        RECONCILES.labels("ok").inc()
        # What is due later than the resync is left to the resync, which lists for all at once.
        return delay if delay is not None and delay < self._settings.resync else None

    async def _reconcile(self, key: Key) -> timedelta | None:
        self._news.discard(key)
        before = self._looks.pop(key, None)
        found = await look_again(self._context, before) if before else None
        if found is None:
            body = await self._cluster.get("ModelDeployment", key.name, key.namespace)
            if body is None or "deletionTimestamp" in body["metadata"]:
                return None
            found = await reconcile(self._context, body)
        (self._under_way.add if found and found.under_way else self._under_way.discard)(key)
        # News that came while we looked is not in what was found.
        if found and not found.wrote and key not in self._news:
            self._looks[key] = found
        return self._come_back(found) if found else None

    def _come_back(self, found: Look) -> timedelta:
        """Say when to look again: the less often, the more is under way."""
        share = timedelta(seconds=min(len(self._under_way) / _POLLS_PER_SECOND, _LONGEST_POLL_SECONDS))
        return max(found.come_back, share) if found.under_way else found.come_back

    async def _registry_pass(self, name: str) -> None:
        try:
            body = await self._cluster.get("ModelRegistry", name)
            if body is None or "deletionTimestamp" in body["metadata"]:
                return
            registry = ModelRegistry.of(body)
            health = await self._resolver.health(registry)
            await apply_status(self._cluster, body, registry_status(registry, health, now()))
        except TemporaryError as error:
            _logger.warning("%s", error, extra={"object": name})
            raise
        except Exception:
            _logger.exception("the pass failed", extra={"object": name})
            raise

    # ---------------------------------------------------------------------------------------------------------- resync

    async def _resync_for_ever(self) -> None:
        while True:
            try:
                await self._resync()
                RESYNCED.set_to_current_time()
                self._health.beat()
            except ClusterError as error:
                _logger.warning("the resync failed: %s", error)
            except Exception:
                _logger.exception("the resync failed")
            await asyncio.sleep(self._settings.resync.total_seconds() * random.uniform(0.9, 1.1))

    async def _resync(self) -> None:
        places = self._settings.watch_namespaces
        known_registries = set(self._known_registries)
        registries = await self._cluster.list("ModelRegistry")
        self._known_labels.clear()
        named: dict[str, Object] = {body["metadata"]["name"]: body for body in registries}
        # One that came while the list was on its way is in no list, and not gone.
        for name in known_registries - named.keys():
            if gone := self._known_registries.get(name):
                self.registry_gone(gone)
        self._known_registries |= named
        for name, body in named.items():
            self._series.registry_seen(body)
            self._registries.add(name)
        await self._observer.discover()
        versions_of = await versions(self._cluster, places, self._observer.children)
        known, present = set(self._seen), set[Key]()
        # Listed after the children: whose were listed is known then, if it is not gone.
        async for page in self._cluster.pages("ModelDeployment", namespaces=places):
            for body in page:
                present.add(_key(body))
                self._found(body, versions_of(body))
        for key in known - present:
            self._forget(key)

    def _found(self, body: Object, seen: Versions) -> None:
        """Have a pass made over what a resync found, unless nothing can have changed but what a pass comes back for."""
        key = _key(body)
        self._series.deployment_seen(body)
        self._seen[key], self._follows[key] = _asked(body), registry_followed(body)
        look = self._looks.get(key)
        if look and look.versions == seen and not (look.timed and now() - look.at >= self._come_back(look)):
            if look.under_way:
                return
        else:
            self._looks.pop(key, None)
        if "deletionTimestamp" not in body["metadata"]:
            self._deployments.add(key)

    # --------------------------------------------------------------------------------------- what resolving asks for

    async def _registry(self, name: str) -> ModelRegistry | None:
        body = self._known_registries.get(name) or await self._cluster.get("ModelRegistry", name)
        return ModelRegistry.of(body) if body else None

    async def _namespace_labels(self, name: str) -> Mapping[str, str] | None:
        if name not in self._known_labels:
            namespace = await self._cluster.get("Namespace", name)
            if namespace is None:
                return None
            self._known_labels[name] = namespace["metadata"].get("labels", {})
        return self._known_labels[name]

    async def _secret(self, name: str) -> Mapping[str, str] | None:
        try:
            secret = await self._cluster.get("Secret", name, self._settings.namespace)
            data = (secret or {}).get("data", {})
            return {key: base64.b64decode(value).decode() for key, value in data.items()} if secret else None
        except (ForbiddenError, binascii.Error, UnicodeDecodeError):
            return None

    async def _config_map(self, name: str) -> Mapping[str, str] | None:
        try:
            found = await self._cluster.get("ConfigMap", name, self._settings.namespace)
        except ForbiddenError:
            return None
        return found.get("data", {}) if found else None

    # ------------------------------------------------------------------------------------------------------------ start

    async def _crds_are_there(self) -> bool:
        for plural in _CRDS:
            name = f"{plural}.{GROUP}"
            try:
                crd = await self._cluster.get("CustomResourceDefinition", name)
            except ClusterError as error:
                _logger.warning("%s", error)
                return False
            install = (
                "install it with `kubectl apply --server-side -f crds/` or with the chart (crds.enabled=true)"
            )
            if crd is None:
                _logger.error("CustomResourceDefinition %s is missing: %s", name, install)
                return False
            if "x-kubernetes-validations" not in str(crd["spec"]):
                _logger.error(
                    "CustomResourceDefinition %s has none of our rules, it is not ours: %s", name, install
                )
        return True


def _evidence(settings: Settings) -> Evidence:
    """Say where evidence is read: from the pods, from Prometheus, or from them where Prometheus has nothing."""
    pods, provider = PodMetrics(), settings.prometheus
    if provider is None:
        return Evidence(pods)
    prometheus = Prometheus(provider.server)
    scraped = PrometheusMetrics(prometheus, provider.stale)
    queries = Queries(prometheus, settings.templates)
    return Evidence(
        pods,
        Fallback(scraped, pods) if provider.falls_back else scraped,
        queries,
        _gateway(settings, prometheus),
    )


def _gateway(settings: Settings, prometheus: Prometheus) -> GatewayRequests | None:
    """Say who is asked for what pods cannot count themselves: a Gateway whose names of backends are known."""
    provider, gateway = settings.prometheus, settings.http_gateway
    if provider is None or gateway is None or provider.gateway_errors is None:
        return None
    return GatewayRequests(
        prometheus, gateway, settings.gateway_namespaces, provider.stale, settings.gateway_url
    )


def _key(body: Object) -> Key:
    return Key(body["metadata"]["namespace"], body["metadata"]["name"])


def _asked(body: Object) -> Mapping[str, Any]:
    """Give the part of an object that people and Git write: a change of anything else is not news."""
    fields = ("uid", "generation", "labels", "annotations", "deletionTimestamp")
    return {field: body["metadata"].get(field) for field in fields}
