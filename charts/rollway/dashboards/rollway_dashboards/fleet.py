"""The dashboard *Fleet*: every ModelDeployment, the registries, and the operator's health."""

from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue

from rollway_dashboards.parts import Dashboard, Query, graph, number, rows, word

CHOSEN = 'namespace=~"$namespace"'


def said(metric: str, by: str, more: str = "") -> str:
    """What the operator says of the models that are chosen, whichever replica leads; `by`: labels besides the name."""
    matchers = f"{CHOSEN}, {more}" if more else CHOSEN
    labels = f"namespace, name, {by}" if by else "namespace, name"
    return f"max by ({labels}) (rollway_modeldeployment_{metric}{{{matchers}}})"


def rate(metric: str, by: str, more: str = "") -> str:
    """So much a second of what the operator counts, over its replicas."""
    return f"sum by ({by}) (rate(rollway_operator_{metric}{{{more}}}[$__rate_interval]))"


def quantile(share: str, metric: str, by: str = "") -> str:
    """The time that this share of something takes at most."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', labels)})"


def grown(counter: str, by: str) -> str:
    """How much a counter grew within the time that is looked at, where it may begin above 0.

    A series begins with the first thing that it counts, and an increase sees only what comes after that.
    """
    return f"sum by ({by}) (({counter} unless {counter} offset $__range) or increase({counter}[$__range]))"


def dashboard() -> models.Dashboard:
    """Build it."""
    found = Dashboard(
        "Fleet", "rollway-fleet", "Every ModelDeployment, the registries, and the operator's health."
    )
    found.choice("namespace", "label_values(rollway_modeldeployment_info, namespace)", every=True)
    _models(found)
    _rollouts(found)
    _registries(found)
    _operator(found)
    _surroundings(found)
    return found.build()


def _models(found: Dashboard) -> None:
    found.row("Models")
    found.with_panel(
        number("Phases", Query(f"sum by (phase) ({said('phase', 'phase')})", "{{phase}}"), width=12)
    )
    found.with_panel(
        rows(
            "Alerts",
            [
                (
                    "",
                    Query(
                        "max by (alertname, severity, namespace, name)"
                        ' (ALERTS{alertname=~"Rollway.*|MLflow.*", alertstate="firing"})'
                    ),
                )
            ],
            width=12,
        ).height(4)
    )
    versions = (said("version_info", "version", f'track="{track}"') for track in ("stable", "canary"))
    stable, canary = (
        f'max by (namespace, name, {track}) (label_replace({version}, "{track}", "$1", "version", "(.*)"))'
        for track, version in zip(("stable", "canary"), versions, strict=True)
    )
    url = "/d/rollway-model?var-namespace=${__data.fields.namespace}&var-name=${__data.fields.name}"
    found.with_panel(
        rows(
            "Models",
            [
                ("", Query(said("info", "model, alias, runtime, strategy"))),
                ("", Query(stable)),
                ("", Query(canary)),
                ("weight %", Query(said("canary_weight_percent", ""))),
                ("ready", Query(f"sum by (namespace, name) ({said('ready_replicas', 'track')})")),
                ("", Query(f"{said('phase', 'phase')} == 1")),
            ],
        ).override_by_name("name", [DynamicConfigValue("links", [{"title": "Model", "url": url}])])
    )


def _rollouts(found: Dashboard) -> None:
    found.row("Rollouts")
    counter = f"rollway_modeldeployment_rollouts_total{{{CHOSEN}}}"
    found.with_panel(
        number("Ended, by outcome", Query(grown(counter, "outcome"), "{{outcome}}"), width=8).height(8)
    )
    held = said("condition", "type, reason", 'type=~"Paused|Stalled"')
    found.with_panel(rows("Held and stalled", [("", Query(f"{held} == 1"))], width=8))
    found.with_panel(
        graph(
            "From the registry's change to the promotion",
            Query(said("promotion_seconds", ""), "{{namespace}}/{{name}}"),
            unit="s",
        )
    )


def _registries(found: Dashboard) -> None:
    found.row("Registries")
    found.with_panel(graph("Ready", Query("max by (registry) (rollway_modelregistry_ready)", "{{registry}}")))
    found.with_panel(
        graph(
            "Requests",
            Query(rate("registry_requests_total", "registry, result"), "{{registry}} {{result}}"),
            unit="reqps",
        )
    )
    found.with_panel(
        graph(
            "Answers, p99",
            Query(quantile("0.99", "registry_request_duration_seconds", "registry"), "{{registry}}"),
            unit="s",
        )
    )


def _operator(found: Dashboard) -> None:
    found.row("Operator")
    found.with_panel(word("Leads", Query("max by (pod) (rollway_leader) == 1", "{{pod}}"), width=8))
    found.with_panel(
        word("Version", Query("group by (version) (rollway_operator_build_info)", "{{version}}"), width=4)
    )
    found.with_panel(
        number(
            "Last resync",
            Query("time() - max(rollway_operator_resync_timestamp_seconds)"),
            unit="s",
            width=4,
            why="How long ago the last comparison with the cluster ended well.",
        )
    )
    found.with_panel(number("Due", Query("max(rollway_operator_queue_depth)"), width=4))
    found.with_panel(
        number("Longest wait", Query("max(rollway_operator_queue_oldest_seconds)"), unit="s", width=4)
    )
    found.with_panel(graph("Passes", Query(rate("reconcile_total", "result"), "{{result}}"), unit="ops"))
    found.with_panel(
        graph(
            "A pass takes",
            Query(quantile("0.5", "reconcile_duration_seconds"), "p50"),
            Query(quantile("0.99", "reconcile_duration_seconds"), "p99"),
            unit="s",
        )
    )
    found.with_panel(
        graph(
            "Writes",
            Query(rate("writes_total", "kind"), "{{kind}}"),
            unit="wps",
            why="At rest there are none: growth then is a fight with somebody.",
        )
    )


def _surroundings(found: Dashboard) -> None:
    found.row("What the operator needs")
    found.with_panel(
        graph("API requests", Query(rate("api_requests_total", "verb"), "{{verb}}"), unit="reqps")
    )
    found.with_panel(
        graph("API answers", Query(rate("api_requests_total", "code"), "{{code}}"), unit="reqps")
    )
    found.with_panel(
        graph(
            "API answers, p99",
            Query(quantile("0.99", "api_request_duration_seconds", "verb"), "{{verb}}"),
            unit="s",
        )
    )
    found.with_panel(
        graph(
            "Watch breaks",
            Query("sum(increase(rollway_operator_watch_breaks_total[$__rate_interval]))"),
            width=6,
        )
    )
    found.with_panel(
        graph(
            "Queries to Prometheus",
            Query(rate("prometheus_queries_total", "result"), "{{result}}"),
            unit="reqps",
            width=6,
        )
    )
    found.with_panel(
        graph(
            "Notifications",
            Query(rate("notifications_total", "receiver, result"), "{{receiver}} {{result}}"),
            Query("sum(rollway_operator_notifications_queued)", "queued"),
            width=6,
        )
    )
    found.with_panel(
        graph(
            "Targets that are down",
            Query(
                'count by (namespace, rollway_dev_model_deployment) (up{rollway_dev_model_deployment!=""} == 0)',
                "{{namespace}}/{{rollway_dev_model_deployment}}",
            ),
            width=6,
        )
    )
