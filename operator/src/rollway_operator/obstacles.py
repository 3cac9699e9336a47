"""What keeps a spec from becoming pods although its schema allows it: what the administrator or the cluster knows.

Each is a fact with the field's name and the way out. Nothing new starts while there is one; what serves goes on.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from rollway_operator import labels
from rollway_operator.api.v1alpha1 import LabelSelector, ModelDeployment
from rollway_operator.domain import Failure, Fault, Observed, Platform
from rollway_operator.traffic import host_permitted

LARGEST_GOLDEN: Final = 256 * 1024

_RESOURCES: Final = ("cpu", "memory", "ephemeral-storage")

Obstacle = Callable[[ModelDeployment, Observed, Platform], Failure | None]


def find(deployment: ModelDeployment, observed: Observed, platform: Platform) -> Failure | None:
    """Tell the first thing that stands in the way of a new revision, if anything does."""
    found = (obstacle(deployment, observed, platform) for obstacle in OBSTACLES)
    return next((failure for failure in found if failure), None)


def runtime_unknown(deployment: ModelDeployment, _: Observed, platform: Platform) -> Failure | None:
    """The spec names an inference server that the administrator did not define."""
    name = deployment.spec.predictor.runtime
    if name in platform.runtimes:
        return None
    listed = ", ".join(sorted(platform.runtimes)) or "none"
    return _failure(
        "RuntimeNotFound",
        f"spec.predictor.runtime: {name!r} is not a runtime the administrator defined ({listed})",
    )


def toleration_not_permitted(deployment: ModelDeployment, _: Observed, platform: Platform) -> Failure | None:
    """The spec tolerates a taint by which the administrator keeps models away."""
    keys = [toleration.key for toleration in deployment.spec.predictor.tolerations]
    refused = next((key for key in keys if key not in platform.toleration_keys), None)
    if refused is None:
        return None
    listed = ", ".join(sorted(platform.toleration_keys)) or "none"
    return _failure(
        "TolerationNotPermitted",
        f"spec.predictor.tolerations: the key {refused!r} is not one that the administrator permits ({listed}); take "
        "it out, or have it added to modelTolerations of the chart's values",
    )


def batching_not_supported(deployment: ModelDeployment, _: Observed, platform: Platform) -> Failure | None:
    """The spec wants requests put together by an inference server that cannot."""
    predictor = deployment.spec.predictor
    runtime = platform.runtimes.get(predictor.runtime)
    if predictor.batching is None or runtime is None or runtime.batching:
        return None
    able = ", ".join(sorted(name for name, each in platform.runtimes.items() if each.batching)) or "none"
    return _failure(
        "BatchingNotSupported",
        f"spec.predictor.batching: the runtime {runtime.name!r} does not put requests together; take it out, or choose "
        f"a runtime that does ({able})",
    )


def host_not_permitted(deployment: ModelDeployment, _: Observed, platform: Platform) -> Failure | None:
    """The spec names a host that the administrator does not permit in the namespace."""
    route, namespace = deployment.spec.route, deployment.metadata.namespace
    for number, host in enumerate(route.hosts if route else ()):
        field = f"spec.route.hosts[{number}]: {host[:100]!r}"
        if platform.http_gateway is None:
            return _failure(
                "HostNotPermitted",
                f"{field} cannot be served, since no Gateway is configured; take it out, or have gateway.http and "
                "gateway.permittedHosts of the chart's values set",
            )
        if not host_permitted(host, namespace, platform.permitted_hosts):
            listed = ", ".join(platform.permitted_hosts) or "none"
            return _failure(
                "HostNotPermitted",
                f"{field} is not a host that the administrator permits in namespace '{namespace}' ({listed}); change "
                "it, or have it added to gateway.permittedHosts of the chart's values",
            )
    return None


def template_unknown(deployment: ModelDeployment, _: Observed, platform: Platform) -> Failure | None:
    """A metric names a query that the administrator did not write."""
    metrics = (deployment.spec.analysis and deployment.spec.analysis.metrics) or ()
    for number, metric in enumerate(metrics):
        named = metric.template_ref.name if metric.template_ref else None
        if named is not None and named not in platform.templates:
            listed = ", ".join(sorted(platform.templates)) or "none"
            return _failure(
                "TemplateNotFound",
                f"spec.analysis.metrics[{number}].templateRef.name: {named!r} is not a template the administrator "
                f"defined ({listed}); change it, or have it added to analysis.templates of the chart's values",
            )
    return None


def label_key_invalid(deployment: ModelDeployment, _: Observed, __: Platform) -> Failure | None:
    """A label's key could not be one: no schema can check the keys of a map."""
    for field, key in _label_keys(deployment):
        if not labels.KEY.fullmatch(key):
            return _failure(
                "SpecInvalid",
                f"{field}: {key[:100]!r} cannot be a label's key; write at most 63 letters, digits, '-', '_' and '.', "
                "after a domain and a slash if need be",
            )
    return None


def monitor_label_taken(deployment: ModelDeployment, _: Observed, __: Platform) -> Failure | None:
    """A label of the PodMonitor is one by which its owner is known."""
    ours = labels.common(deployment.metadata.name)
    for field, key in _monitor_keys(deployment):
        if key in ours:
            return _failure("SpecInvalid", f"{field}: {key!r} is Rollway's own; take it out")
    return None


def resource_invalid(deployment: ModelDeployment, _: Observed, __: Platform) -> Failure | None:
    """A resource is none that a container can have, or one that cannot be shared is asked for and not limited."""
    resources = deployment.spec.predictor.resources
    requests, limits = (resources and resources.requests) or {}, (resources and resources.limits) or {}
    for name in (*requests, *limits):
        of_a_domain = "/" in name and labels.KEY.fullmatch(name)
        if not of_a_domain and name not in _RESOURCES and not name.startswith("hugepages-"):
            known = ", ".join(_RESOURCES)
            return _failure(
                "SpecInvalid",
                f"spec.predictor.resources: {name[:100]!r} is no resource; use {known} or one with a domain, such as "
                "nvidia.com/gpu",
            )
    for name, asked in requests.items():
        if "/" in name and limits.get(name) != asked:
            return _failure(
                "SpecInvalid",
                f"spec.predictor.resources: {name} is not shared between pods; set limits.{name} to {asked}, too",
            )
    return None


def label_keys_are_wrong(deployment: ModelDeployment) -> bool:
    """Say whether the API server would refuse an object made of the spec's labels."""
    return any(not labels.KEY.fullmatch(key) for _, key in _label_keys(deployment))


def golden_missing(deployment: ModelDeployment, observed: Observed, _: Platform) -> Failure | None:
    """The smoke test's ConfigMap does not exist, or lacks the key."""
    name = golden_name(deployment)
    if name is None or observed.golden is not None:
        return None
    return _failure(
        "GoldenNotFound",
        f"spec.preTraffic.smokeTest.configMapRef.name: namespace '{deployment.metadata.namespace}' has no ConfigMap "
        f"'{name}' with the key golden.json; make it, or choose another source",
    )


def golden_unusable(deployment: ModelDeployment, observed: Observed, _: Platform) -> Failure | None:
    """The smoke test's data are not a list of requests with the predictions expected."""
    name, text = golden_name(deployment), observed.golden
    # A revision was made of this very text before: it was looked at then.
    if name is None or text is None or any(each.inputs.get("golden") == text for each in observed.revisions):
        return None
    problem = _problem(text)
    if problem is None:
        return None
    return _failure(
        "GoldenInvalid",
        f"spec.preTraffic.smokeTest.configMapRef: golden.json of ConfigMap '{name}' {problem}; it must be "
        '[{"request": {…}, "predictions": […]}, …]',
    )


OBSTACLES: tuple[Obstacle, ...] = (
    runtime_unknown,
    toleration_not_permitted,
    batching_not_supported,
    host_not_permitted,
    template_unknown,
    label_key_invalid,
    monitor_label_taken,
    resource_invalid,
    golden_missing,
    golden_unusable,
)


def golden_name(deployment: ModelDeployment) -> str | None:
    """Name the ConfigMap with the smoke test's data, if the spec asks for one."""
    gates = deployment.spec.pre_traffic
    test = gates.smoke_test if gates else None
    if test is None or test.source != "ConfigMap" or test.config_map_ref is None:
        return None
    return test.config_map_ref.name


def _problem(text: str) -> str | None:
    """Say what is wrong with golden data, as the end of a sentence that begins with their name."""
    size = len(text.encode())
    if size > LARGEST_GOLDEN:
        return f"has {size} bytes, more than {LARGEST_GOLDEN}"
    try:
        cases = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = (
            f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        )
        return f"is not JSON{where}"
    if not isinstance(cases, list) or not cases:
        return "is not a JSON list of cases"
    return next((said for number, case in enumerate(cases) if (said := _problem_of_case(number, case))), None)


def _problem_of_case(number: int, case: Any) -> str | None:
    if not isinstance(case, dict):
        return f"has a case [{number}] that is not an object"
    for key, kind, word in (("request", dict, "an object"), ("predictions", list, "a list")):
        if not isinstance(case.get(key), kind):
            return f"has a case [{number}] whose {key} is not {word}"
    return None


def _label_keys(deployment: ModelDeployment) -> Iterator[tuple[str, str]]:
    """Give each key of a label in the spec, with its field."""
    spec = deployment.spec
    yield from _keys("spec.predictor.nodeSelector", spec.predictor.node_selector)
    for number, peer in enumerate((spec.network_policy and spec.network_policy.from_) or ()):
        for name, selector in (
            ("podSelector", peer.pod_selector),
            ("namespaceSelector", peer.namespace_selector),
        ):
            yield from _selector_keys(f"spec.networkPolicy.from[{number}].{name}", selector)
    yield from _monitor_keys(deployment)


def _monitor_keys(deployment: ModelDeployment) -> Iterator[tuple[str, str]]:
    yield from _keys("spec.monitoring.podMonitor.labels", deployment.spec.pod_monitor.labels)


def _selector_keys(field: str, selector: LabelSelector | None) -> Iterator[tuple[str, str]]:
    if selector:
        yield from _keys(f"{field}.matchLabels", selector.match_labels)
        for requirement in selector.match_expressions:
            yield f"{field}.matchExpressions", requirement.key


def _keys(field: str, named: Mapping[str, str] | None) -> Iterator[tuple[str, str]]:
    for key in named or ():
        yield field, key


def _failure(reason: str, message: str) -> Failure:
    return Failure(reason, message, Fault.NOBODY)
