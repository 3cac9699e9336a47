"""The dashboard *Model*: one ModelDeployment, stable against canary."""

from grafana_foundation_sdk.models import dashboard as models

from rollway_dashboards.parts import Dashboard, Query, graph, number, rows, word

SAID = 'namespace="$namespace", name="$name"'
"""Selects what the operator says of the model, and the recorded rates."""
POD = 'namespace="$namespace", rollway_dev_model_deployment="$name"'
"""Selects what the model's own pods say: by labels of their targets, which no model sets."""


def said(metric: str, by: str = "", more: str = "") -> str:
    """What the operator says of it, whichever replica leads; `by` names the labels that are kept."""
    matchers = f"{SAID}, {more}" if more else SAID
    return f"max by ({by}) (rollway_modeldeployment_{metric}{{{matchers}}})"


def by_track(expression: str) -> str:
    """Mark recorded series of a revision as stable's or the canary's, which only the operator knows."""
    return f"{expression} * on (revision) group_left (track) {said('version_info', 'revision, track')}"


def dashboard() -> models.Dashboard:
    """Build it."""
    found = Dashboard(
        "Model", "rollway-model", "One ModelDeployment: what serves, and stable against canary."
    )
    found.choice("namespace", "label_values(rollway_modeldeployment_info, namespace)")
    found.choice("name", 'label_values(rollway_modeldeployment_info{namespace="$namespace"}, name)')
    found.choice(
        "metric", f"label_values(rollway_modeldeployment_metric_samples{{{SAID}}}, metric)", every=True
    )
    _serves(found)
    _verdicts(found)
    _traffic(found)
    _load(found)
    _pods(found)
    return found.build()


def _serves(found: Dashboard) -> None:
    found.row("What serves")
    for track in ("stable", "canary"):
        version = said("version_info", "version", f'track="{track}"')
        found.with_panel(word(track.capitalize(), Query(version, "v{{version}}")))
    found.with_panel(word("Phase", Query(f"{said('phase', 'phase')} == 1", "{{phase}}")))
    found.with_panel(number("Canary's weight", Query(said("canary_weight_percent")), unit="percent"))
    found.with_panel(
        number("Step", Query(said("step"), "step"), Query(said("steps"), "of"), why="Counted from 0.")
    )
    found.with_panel(
        number("Rollout since", Query(f"time() - {said('rollout_start_timestamp_seconds')}"), unit="s")
    )
    found.with_panel(
        number(
            "Last promotion took",
            Query(said("promotion_seconds")),
            unit="s",
            why="From the registry's change to the promotion.",
        )
    )
    found.with_panel(
        word("Server", Query(f"group by (flavor, path) (rollway_model_info{{{POD}}})", "{{flavor}} {{path}}"))
    )
    found.with_panel(
        rows("Declared", [("", Query(said("info", "model, alias, registry, runtime, strategy")))], width=12)
    )
    found.with_panel(
        rows(
            "Conditions",
            [("holds", Query(said("condition", "type, reason")))],
            width=12,
            why="1: it holds, 0: it does not.",
        )
    )


def _verdicts(found: Dashboard) -> None:
    found.row("Verdicts")
    found.with_panel(
        word(
            "Verdict",
            Query(f"{said('metric_verdict', 'metric, verdict')} == 1", "{{metric}}: {{verdict}}"),
            width=12,
        )
    )
    found.with_panel(number("Samples", Query(said("metric_samples", "metric"), "{{metric}}"), width=12))
    of_metric = 'metric=~"$metric"'
    found.with_panel(
        graph(
            "$metric against its threshold",
            *(
                Query(said(f"metric_{part}", "metric", of_metric), part)
                for part in ("value", "lower", "upper", "threshold")
            ),
            width=24,
            why="Pass: the whole interval is below the threshold. Fail: it is wholly above. Between: more is needed.",
        )
        .repeat("metric")
        .repeat_direction("h")
    )


def _traffic(found: Dashboard) -> None:
    requests = "revision:rollway_inference_requests:rate5m"
    found.row("Traffic, errors and latency, by version")
    found.with_panel(
        graph(
            "Requests",
            Query(f"sum by (version) ({requests}{{{SAID}}})", "v{{version}}"),
            unit="reqps",
        )
    )
    found.with_panel(
        graph(
            "Outcomes",
            Query(f"sum by (outcome) ({requests}{{{SAID}}})", "{{outcome}}"),
            unit="reqps",
            why="client_error is the client's doing and counts nowhere; shed was turned away, for the load.",
        )
    )
    found.with_panel(
        graph(
            "Failed",
            Query(f"track:rollway_inference_errors:ratio_rate5m{{{SAID}}}", "{{track}} v{{version}}"),
            unit="percentunit",
            why="The share of failures among what is not the client's doing.",
        )
    )
    durations = "revision:rollway_inference_request_duration_seconds"
    latencies = {
        "Latency p50": f"histogram_quantile(0.5, {durations}_bucket:rate5m{{{SAID}}})",
        "Latency p99": f"{durations}:p99_rate5m{{{SAID}}}",
    }
    for title, latency in latencies.items():
        panel = graph(title, Query(by_track(latency), "{{track}} v{{version}}"), unit="s", width=12)
        found.with_panel(panel)


def _load(found: Dashboard) -> None:
    found.row("Load")
    found.with_panel(
        graph(
            "In progress",
            Query(f"sum by (pod) (rollway_inference_requests_in_progress{{{POD}}})", "{{pod}}"),
            width=6,
        )
    )
    found.with_panel(
        graph("Queue", Query(f"sum by (pod) (rollway_inference_queue_depth{{{POD}}})", "{{pod}}"), width=6)
    )
    each, calls = (
        f"sum by (app_kubernetes_io_version) (rate(rollway_inference_batch_rows_{part}{{{POD}}}[$__rate_interval]))"
        for part in ("sum", "count")
    )
    found.with_panel(
        graph("Rows in a call", Query(f"{each} / {calls}", "v{{app_kubernetes_io_version}}"), width=6)
    )
    found.with_panel(
        graph(
            "Turned away",
            Query(f"model:rollway_inference_shed:ratio_rate5m{{{SAID}}}", "shed"),
            unit="percentunit",
            width=6,
        )
    )


def _pods(found: Dashboard) -> None:
    found.row("Pods")
    found.with_panel(
        graph(
            "Ready",
            Query(said("ready_replicas", "track"), "{{track}} ready"),
            Query(said("replicas", "track"), "{{track}} pods"),
            width=6,
        )
    )
    found.with_panel(
        graph(
            "Restarts within an hour",
            Query(f"sum by (pod) (changes(process_start_time_seconds{{{POD}}}[1h]))", "{{pod}}"),
            width=6,
        )
    )
    found.with_panel(
        graph(
            "Memory",
            Query(f"sum by (pod) (process_resident_memory_bytes{{{POD}}})", "{{pod}}"),
            unit="bytes",
            width=6,
        )
    )
    found.with_panel(
        graph(
            "CPU",
            Query(f"sum by (pod) (rate(process_cpu_seconds_total{{{POD}}}[$__rate_interval]))", "{{pod}}"),
            width=6,
        )
    )
