"""ModelDeployment and ModelRegistry of rollway.dev/v1alpha1: the source of the CRDs, and how the operator reads them.

What a schema can say stands in the types; what needs two fields at once stands beside them as a CEL rule. Reading is
more lenient than admission on purpose: an object stored by a newer CRD must not stop an older operator.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP: Final = "rollway.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

LINK_LOCAL: Final = "169.254.0.0/16"
"""Where cloud machines keep their metadata, and with it credentials."""

_DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
_DURATION = r"^[1-9][0-9]{0,5}(ms|s|m|h)$"
_LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?$"
_FRACTION = r"^[0-9]{1,9}(\.[0-9]{1,9})?$"
_SHORT_WAIT = r"^([0-9]{1,4}ms|[0-9]{1,2}s)$"
_HOST = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+$"
_ROLE_ARN = r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/([A-Za-z0-9+=,.@_-]+/)*[A-Za-z0-9+=,.@_-]{1,64}$"
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def rule(cel: str, message: str, **more: str) -> dict[str, str]:
    """Write one validation rule of a CRD: the CEL expression that must hold and what is said where it does not."""
    return {"rule": cel, "message": message, **more}


def rules(*validations: dict[str, str]) -> dict[str, Any]:
    """Attach validation rules to a field or a type."""
    return {"x-kubernetes-validations": list(validations)}


def form(words: str) -> dict[str, Any]:
    """Say in words what a field's pattern asks for: of a pattern alone the API server shows nothing but the pattern."""
    return {"x-form": words}


def seconds(duration: str) -> float:
    """Read a duration such as `30s`, `5m` or `250ms` as seconds."""
    digits = duration.rstrip("mhs")
    return int(digits) * _UNIT_SECONDS[duration[len(digits) :]]


Duration = Annotated[
    str,
    Field(
        pattern=_DURATION,
        max_length=9,
        json_schema_extra=form("must be a whole number above 0 with its unit, ms, s, m or h, such as 30s")
        | rules(
            rule(f"!self.matches(r'{_DURATION}') || duration(self) <= duration('24h')", "must be at most 24h")
        ),
    ),
]
Quantity = Annotated[
    str,
    Field(
        max_length=24,
        pattern=_QUANTITY,
        json_schema_extra={"x-kubernetes-int-or-string": True}
        | form("must be a quantity such as 500m or 2Gi"),
    ),
]


_LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
LabelValue = Annotated[str, Field(max_length=63, pattern=_LABEL_VALUE)]
MonitorLabelValue = Annotated[
    str,
    Field(
        max_length=63,
        pattern=_LABEL_VALUE,
        # In words for this map alone: in all lists of selectors together they would cost the API server too much.
        json_schema_extra=form(
            "must be letters, digits, '-', '_' and '.', beginning and ending with a letter or a digit"
        ),
    ),
]


class Value(BaseModel):
    """A frozen part of an API object: camelCase outside, snake_case inside."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
        coerce_numbers_to_str=True,
        protected_namespaces=(),
    )


# ------------------------------------------------------------------------------------- parts of both kinds


class LabelSelectorRequirement(Value):
    """One requirement on one label."""

    key: str = Field(min_length=1, max_length=317, pattern=_LABEL_KEY, description="The label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="How the label's value is compared."
    )
    values: tuple[LabelValue, ...] = Field(default=(), max_length=20, description="Values for In and NotIn.")

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
                "set values exactly with the operators In and NotIn",
            )
        )
    )


class LabelSelector(Value):
    """A metav1.LabelSelector."""

    match_labels: Mapping[str, LabelValue] = Field(
        default_factory=dict, max_length=20, description="Labels that must have these values."
    )
    match_expressions: tuple[LabelSelectorRequirement, ...] = Field(
        default=(), max_length=20, description="Further requirements, all of which must hold."
    )


class ConfigMapRef(Value):
    """Names a ConfigMap."""

    name: str = Field(
        min_length=1, max_length=253, pattern=_DNS_SUBDOMAIN, description="Name of the ConfigMap."
    )


class IPBlock(Value):
    """A range of addresses, without some of them; link-local addresses (169.254.0.0/16) never belong to it."""

    cidr: str = Field(
        min_length=1,
        max_length=43,
        description="The range, such as 10.0.0.0/8.",
        json_schema_extra=rules(
            rule("isCIDR(self)", "must be a range of addresses, such as 10.0.0.0/8"),
            rule(
                f"!isCIDR(self) || !cidr('{LINK_LOCAL}').containsCIDR(self)",
                f"{LINK_LOCAL} holds the metadata of cloud machines: no pod may reach it",
            ),
        ),
    )
    except_: tuple[Annotated[str, Field(max_length=43)], ...] = Field(
        default=(), alias="except", max_length=10, description="Smaller ranges that do not belong to it."
    )

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.except) || !isCIDR(self.cidr) || self.except.all(part, isCIDR(part) && part != self.cidr && "
                "cidr(self.cidr).containsCIDR(part))",
                "each range under except must lie inside cidr and be smaller",
            )
        )
    )


class Peer(Value):
    """Pods or addresses at the other end of a connection, as in a NetworkPolicy."""

    pod_selector: LabelSelector | None = Field(
        default=None, description="Labels of the pods; of this namespace where namespaceSelector is absent."
    )
    namespace_selector: LabelSelector | None = Field(
        default=None,
        description="Labels of the pods' namespaces, such as kubernetes.io/metadata.name; {} selects every namespace.",
    )
    ip_block: IPBlock | None = Field(default=None, description="Addresses, for what is not a pod.")

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.ipBlock) != (has(self.podSelector) || has(self.namespaceSelector))",
                "set ipBlock alone, or podSelector, namespaceSelector or both",
            )
        )
    )


class PolicyPort(Value):
    """A port at the other end, or a range of ports."""

    protocol: Literal["TCP", "UDP", "SCTP"] | None = Field(
        default=None, description="TCP where it is absent."
    )
    port: int = Field(
        ge=1, le=65535, description="The port that the pod listens on, not the port of its Service."
    )
    end_port: int | None = Field(
        default=None, ge=1, le=65535, description="The last port, where a range is meant that begins at port."
    )

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("!has(self.endPort) || self.endPort >= self.port", "endPort must be at least port")
        )
    )


class EgressRule(Value):
    """Where pods may connect to: these peers on these ports."""

    to: tuple[Peer, ...] = Field(
        default=(),
        max_length=10,
        description="The other ends; absent means any, link-local addresses excepted.",
    )
    ports: tuple[PolicyPort, ...] = Field(
        default=(), max_length=10, description="The ports; absent means every port."
    )


# ------------------------------------------------------------------------------------------- ModelDeployment


class RegistryRef(Value):
    """Names the ModelRegistry that the model comes from."""

    name: str = Field(
        default="default",
        min_length=1,
        max_length=63,
        pattern=_DNS_SUBDOMAIN,
        description="Name of a ModelRegistry, which the cluster's administrator writes.",
        json_schema_extra=form(
            "must be lower-case letters, digits, '-' and '.', as every ModelRegistry's name"
        ),
    )


class Model(Value):
    """Says which version of which registered model is served."""

    name: str = Field(
        min_length=1,
        max_length=200,
        pattern=r"^[A-Za-z0-9_]([A-Za-z0-9_. -]*[A-Za-z0-9_])?$",
        description="Name of the registered model in MLflow: letters, digits, spaces, dots, dashes, underscores. "
        "Immutable.",
        json_schema_extra=form(
            "must be letters, digits, spaces, '.', '-' and '_', beginning and ending with none but letters, digits and "
            "'_': the name of a registered model, never a path or a URL"
        )
        | rules(rule("!self.contains('..')", "must not contain '..'")),
    )
    alias: str | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        pattern=r"^[A-Za-z0-9_-]+$",
        description="Alias to follow, such as champion: when the registry moves it, its new version is rolled out. "
        "Exactly one of alias and version.",
        json_schema_extra=form("must be letters, digits, '-' and '_'")
        | rules(
            rule("self != 'latest'", "'latest' is reserved by MLflow; set an alias of your own or a version"),
            rule(
                "!self.matches('^[vV][0-9]+$')",
                'reserved by MLflow for versions; use version: "3" instead of alias: v3',
            ),
        ),
    )
    version: str | None = Field(
        default=None,
        max_length=18,
        pattern=r"^[1-9][0-9]*$",
        description='Version to serve, as a string such as "12". Exactly one of alias and version.',
        json_schema_extra=form(
            'must be digits without a leading zero, such as "12"; to follow a name, set alias'
        ),
    )
    registry_ref: RegistryRef | None = Field(
        default=None,
        description="The ModelRegistry that the model comes from; the one named default where it is absent. Immutable.",
    )
    update_policy: Literal["Automatic", "Manual"] | None = Field(
        default=None,
        description="Automatic (the default): another version that the registry names is rolled out. Manual: it is "
        "shown, and waits for the annotation rollway.dev/promote. Other changes are rolled out in either case.",
    )
    digest: str | None = Field(
        default=None,
        max_length=71,
        pattern=r"^(sha256:[0-9a-f]{64})?$",
        description="Optional pin: sha256:<64 hex> over the artifacts, as status.stable.digest shows it. A version "
        "whose artifacts have another digest never serves.",
        json_schema_extra=form(
            "must be sha256: and 64 lower-case hex digits, as status.stable.digest shows it"
        ),
    )

    require_tags: Mapping[str, Annotated[str, Field(max_length=500)]] | None = Field(
        default=None,
        max_length=10,
        description="Tags that the version must carry in MLflow, each with this value, such as "
        "validation_status: approved. Until it does, what serves goes on; set later, it lets the version go by itself.",
        json_schema_extra=rules(
            rule("self.all(tag, size(tag) > 0 && size(tag) <= 250)", "a tag has 1 to 250 characters")
        ),
    )

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("has(self.alias) != has(self.version)", "set exactly one of alias and version"),
            rule(
                "self.name == oldSelf.name",
                "name is immutable; create a new ModelDeployment",
                fieldPath=".name",
            ),
            rule(
                "(has(self.registryRef) && has(self.registryRef.name) ? self.registryRef.name : 'default') == "
                "(has(oldSelf.registryRef) && has(oldSelf.registryRef.name) ? oldSelf.registryRef.name : 'default')",
                "registryRef is immutable; create a new ModelDeployment",
            ),
        )
    )


class Resources(Value):
    """What a model server asks for and may use, as in a Pod."""

    requests: Mapping[str, Quantity] | None = Field(
        default=None,
        max_length=20,
        description="What the scheduler sets aside for each pod, such as cpu: 500m.",
    )
    limits: Mapping[str, Quantity] | None = Field(
        default=None, max_length=20, description="What each pod may use at most, such as memory: 2Gi."
    )

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.requests) || !has(self.limits) || self.requests.all(k, !(k in self.limits) || "
                "!isQuantity(string(self.requests[k])) || !isQuantity(string(self.limits[k])) || "
                "quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)",
                "each request must be at most the limit of the same name",
            )
        )
    )


class Toleration(Value):
    """A taint that the model's pods tolerate, as in a Pod; its key must be one that the administrator permits."""

    key: str = Field(
        min_length=1,
        max_length=317,
        pattern=_LABEL_KEY,
        description="Key of the taint, one of those in modelTolerations of the chart's values.",
    )
    operator: Literal["Exists", "Equal"] | None = Field(
        default=None, description="Equal where it is absent. Exists tolerates every value."
    )
    value: LabelValue | None = Field(default=None, description="Value of the taint, for Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Effect of the taint; absent means every effect."
    )
    toleration_seconds: int | None = Field(
        default=None,
        ge=0,
        le=86400,
        description="How long the pods stay when the taint is added, for NoExecute; absent means for ever.",
    )

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
                "set no value with the operator Exists",
            ),
            rule(
                "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
                "set tolerationSeconds only with the effect NoExecute",
            ),
        )
    )


class ResourceTarget(Value):
    """How much of a resource the pods shall use on average."""

    type: Literal["Utilization", "AverageValue"] = Field(
        description="Utilization is a share of what the pods request, AverageValue an amount for each pod."
    )
    average_utilization: int | None = Field(
        default=None, ge=1, le=1000, description="Percent of the request, for Utilization."
    )
    average_value: Quantity | None = Field(
        default=None, description="Amount for each pod, such as 500m, for AverageValue."
    )

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "(self.type == 'Utilization') == has(self.averageUtilization) && "
                "(self.type == 'AverageValue') == has(self.averageValue)",
                "set averageUtilization exactly with type Utilization, averageValue exactly with type AverageValue",
            )
        )
    )


class ResourceMetric(Value):
    """A resource that an autoscaler goes by."""

    name: Literal["cpu", "memory"] = Field(description="The resource; the pods must request it.")
    target: ResourceTarget = Field(description="How much of it the pods shall use on average.")


class AutoscalingMetric(Value):
    """What an autoscaler goes by, as in a HorizontalPodAutoscaler."""

    type: Literal["Resource"] = Field(description="Resource.")
    resource: ResourceMetric = Field(description="The resource and its target.")


class Autoscaling(Value):
    """Lets a HorizontalPodAutoscaler choose how many pods serve."""

    min_replicas: int = Field(ge=1, le=1000, description="As many pods serve at least.")
    max_replicas: int = Field(ge=1, le=1000, description="As many pods serve at most.")
    metrics: tuple[AutoscalingMetric, ...] = Field(
        default=(),
        max_length=5,
        description="What the autoscaler goes by; 80 percent of the requested cpu where it is absent.",
    )

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("self.minReplicas <= self.maxReplicas", "minReplicas must be at most maxReplicas")
        )
    )


class Batching(Value):
    """Lets requests that arrive together share one prediction."""

    max_batch_size: int = Field(
        ge=2, le=100_000, description="How many rows one prediction takes at most, those of all its requests."
    )
    max_latency: Annotated[
        str,
        Field(
            pattern=_SHORT_WAIT,
            max_length=9,
            json_schema_extra=form("must be whole milliseconds or seconds, at most 60s, such as 5ms or 0ms"),
        ),
    ] = Field(
        description="How long a request may wait for others, such as 5ms. 0ms waits for none: only requests that "
        "came while the model was busy are joined."
    )


class Predictor(Value):
    """Says how the model is run: by which server, how often, with which resources."""

    runtime: str = Field(
        default="mlserver",
        min_length=1,
        max_length=40,
        pattern=_DNS_LABEL,
        description="Inference server, one of those the administrator defined in the chart's values (runtimes).",
        json_schema_extra=form(
            "must be lower-case letters, digits and '-', as the runtimes of the chart's values"
        ),
    )
    replicas: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="How many pods serve. Also what `kubectl scale` writes. With autoscaling only what is begun with.",
    )
    autoscaling: Autoscaling | None = Field(
        default=None,
        description="Lets a HorizontalPodAutoscaler choose how many pods serve, between two limits.",
    )
    resources: Resources | None = Field(
        default=None, description="Requests and limits of the model server's container."
    )
    timeout: Duration | None = Field(
        default=None,
        description="How long a prediction may take, such as 30s (the default), and a pod that is told to stop may "
        "take to finish those that it has begun.",
    )
    batching: Batching | None = Field(
        default=None,
        description="Lets requests that arrive together share one prediction, where the runtime can; none where it is "
        "absent.",
    )
    node_selector: Mapping[str, LabelValue] | None = Field(
        default=None, max_length=20, description="Labels that a node must carry to run the model's pods."
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(),
        max_length=10,
        description="Taints that the model's pods tolerate, of keys that the administrator permits.",
    )
    environment_policy: Literal["Ignore", "Warn", "Enforce"] | None = Field(
        default=None,
        description="What is done where the packages of the server's image are not those that the model requires: "
        "Ignore does not compare, Warn (the default) serves and says so in the condition EnvironmentMismatch, Enforce "
        "does not serve the version.",
    )

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                f"!has(self.batching) || !self.batching.maxLatency.matches(r'{_SHORT_WAIT}') || "
                f"(has(self.timeout) && !self.timeout.matches(r'{_DURATION}')) || "
                "duration(self.batching.maxLatency) <= duration(has(self.timeout) ? self.timeout : '30s')",
                "batching.maxLatency must be at most timeout, which is 30s where it is absent",
            )
        )
    )


class SmokeTest(Value):
    """The prediction that each pod must answer before it takes traffic."""

    source: Literal["InputExample", "ConfigMap", "Disabled"] | None = Field(
        default=None,
        description="InputExample (the default) predicts on the input example logged with the model: the answer must "
        "have one finite row for each row sent. A model without one skips the gate. ConfigMap predicts on requests of "
        "yours and compares the answers with those that you expect. Disabled skips the gate always.",
    )
    config_map_ref: ConfigMapRef | None = Field(
        default=None,
        description="ConfigMap of this namespace whose key golden.json holds a JSON list of cases, each with request "
        "(a body of /invocations) and predictions (a list); at most 256 KiB. Exactly with source ConfigMap. Edited, "
        "it makes a new revision.",
    )
    max_latency: Duration | None = Field(
        default=None,
        description="How long one prediction of the test may take, such as 500ms; judged in a revision's first pod. "
        "No limit where it is absent.",
    )
    tolerance: str | None = Field(
        default=None,
        max_length=19,
        pattern=_FRACTION,
        description='How far a number may be from the one expected, as a decimal in a string such as "0.001"; '
        '"0.000001" where it is absent.',
        json_schema_extra=form('must be a decimal number in a string, such as "0.001"'),
    )

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.configMapRef) == (has(self.source) && self.source == 'ConfigMap')",
                "set configMapRef exactly with source ConfigMap",
            )
        )
    )


class Warmup(Value):
    """Predictions made before a pod takes traffic, so that the first caller does not wait for caches."""

    requests: int | None = Field(
        default=None, ge=0, le=1000, description="How many predictions on the input example; 20 by default."
    )


class PreTraffic(Value):
    """The gates that each pod passes before it takes traffic."""

    smoke_test: SmokeTest | None = Field(
        default=None, description="The prediction that each pod must answer first."
    )
    warmup: Warmup | None = Field(default=None, description="Predictions made before the first caller's.")
    signature_compatibility: Literal["Backward", "Ignore"] | None = Field(
        default=None,
        description="Backward (the default): a new revision must take what the serving one takes, and give what it "
        "gives; a new required input, a lost input or output, or a changed type ends its rollout before any traffic. "
        "Ignore does not compare.",
    )


class Pause(Value):
    """A wait between two weights."""

    duration: Duration | None = Field(
        default=None,
        description="How long, such as 5m, from when the weight before it is in force. Absent waits for a person's "
        "verb promote.",
    )


class CanaryStep(Value):
    """One step: a share of the traffic, or a wait; set exactly one."""

    set_weight: int | None = Field(
        default=None,
        ge=0,
        le=100,
        description="Percent of the traffic for the new revision. 0 sends none but requests with the header "
        "x-rollway-track: canary, through a Gateway. 100 is the promotion itself.",
    )
    pause: Pause | None = Field(
        default=None, description="A wait: for a time, or with {} for a person's verb promote."
    )

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("has(self.setWeight) != has(self.pause)", "set exactly one of setWeight and pause")
        )
    )


_WEIGHTS: Final = "self.steps.filter(s, has(s.setWeight))"
_LISTED_WEIGHTS: Final = f"%s'.format([{_WEIGHTS}.map(s, s.setWeight)])"


class Canary(Value):
    """The new revision gets a growing share of the traffic and is compared with the one that serves (analysis)."""

    steps: tuple[CanaryStep, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=20,
        description="What happens one after the other; then the promotion. setWeight 10, pause 60s, setWeight 50, "
        "pause 60s where it is absent. A step is left when its pauses are over and no metric speaks against it, "
        "the last one when every metric has passed.",
    )

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                f"!has(self.steps) || {_WEIGHTS}.map(s, s.setWeight).isSorted()",
                "weights must grow from step to step",
                messageExpression=f"'weights must grow from step to step, got {_LISTED_WEIGHTS}",
            ),
            rule(
                f"!has(self.steps) || {_WEIGHTS}.all(s, {_WEIGHTS}.exists_one(t, t.setWeight == s.setWeight))",
                "each weight may be set once",
                messageExpression=f"'each weight may be set once, got {_LISTED_WEIGHTS}",
            ),
            rule(
                f"!has(self.steps) || {_WEIGHTS}.exists(s, s.setWeight > 0 && s.setWeight < 100)",
                "set at least one weight above 0 and below 100: else nothing can be compared",
            ),
            rule(
                "!has(self.steps) || !self.steps.exists(s, has(s.setWeight) && s.setWeight == 100) || "
                "has(self.steps[size(self.steps) - 1].setWeight)",
                "no pause may follow setWeight: 100, which is the promotion",
            ),
        )
    )


class BlueGreen(Value):
    """The new revision stands complete beside the old one, behind a preview Service, then takes all traffic at once."""

    auto_promotion: bool | None = Field(
        default=None,
        description="true (the default): it takes over when previewSeconds are over. false waits for a person's verb "
        "promote.",
    )
    preview_seconds: int | None = Field(
        default=None,
        ge=0,
        le=86400,
        description="How long it can be looked at behind the Service <name>-preview before it takes over; 300 by "
        "default.",
    )
    scale_down_delay_seconds: int | None = Field(
        default=None,
        ge=0,
        le=86400,
        description="How long the old revision keeps its pods after that; 30 by default.",
    )


class RollingUpdate(Value):
    """The new revision reaches its full count and passes its gates, then the Service flips and the old one drains."""


class Recreate(Value):
    """The old revision stops before the new one starts: no answers in between. For models that need the only GPU."""


class Strategy(Value):
    """Says how a new revision replaces the one that serves; set exactly one."""

    canary: Canary | None = Field(
        default=None,
        description="The default. The new revision gets a growing share of the traffic and is compared with the old "
        "one; it takes over when every metric of analysis has passed, and is rolled back when one fails. {} has the "
        "default steps.",
    )
    blue_green: BlueGreen | None = Field(
        default=None,
        description="The new revision reaches its full count behind the Service <name>-preview, is looked at, and "
        "takes all traffic at once; the old one stays a while to go back to. Needs room for both.",
    )
    rolling_update: RollingUpdate | None = Field(
        default=None,
        description="The new revision reaches its full count and passes its gates beside the old "
        "one; then the Service points to it, and the old one finishes its requests and stops. Needs room for "
        "both. No request fails, and nothing is compared.",
    )
    recreate: Recreate | None = Field(
        default=None,
        description="Stops the old revision before it starts the new one, for models that need the only GPU. Nothing "
        "answers in between. If the new revision fails its gates, the old one is started again.",
    )

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "[has(self.canary), has(self.blueGreen), has(self.rollingUpdate), has(self.recreate)]"
                ".exists_one(chosen, chosen)",
                "set exactly one of canary, blueGreen, rollingUpdate and recreate",
            )
        )
    )


class ThresholdRange(Value):
    """What a metric may be."""

    min: str | None = Field(
        default=None,
        max_length=19,
        pattern=_FRACTION,
        description="The least, likewise; only with templateRef.",
        json_schema_extra=form('must be a decimal number in a string, such as "0.98"'),
    )
    max: str | None = Field(
        default=None,
        max_length=19,
        pattern=_FRACTION,
        description='The most, as a decimal in a string such as "0.02".',
        json_schema_extra=form('must be a decimal number in a string, such as "0.02"'),
    )

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("has(self.min) || has(self.max)", "set max, min or both"),
            rule(
                f"!has(self.min) || !has(self.max) || !self.min.matches(r'{_FRACTION}') || "
                f"!self.max.matches(r'{_FRACTION}') || double(self.min) <= double(self.max)",
                "min must be at most max",
            ),
        )
    )


class TemplateRef(Value):
    """Names a query that the administrator wrote."""

    name: str = Field(
        min_length=1,
        max_length=63,
        pattern=_DNS_LABEL,
        description="One of analysis.templates of the chart's values.",
        json_schema_extra=form("must be lower-case letters, digits and '-', as in the chart's values"),
    )


_NO_LIMIT: Final = (
    "!has(self.thresholdRange) || !has(self.thresholdRange.max) || "
    f"!self.thresholdRange.max.matches(r'{_FRACTION}')"
)
_MEASURED: Final = ("interval", "count", "failureLimit", "inconclusiveLimit")
_COMPARED: Final = ("compareTo", "compareMode", "minSamples")


class AnalysisMetric(Value):
    """Something that is compared with the revision that serves, or that an administrator's query measures."""

    name: str = Field(
        min_length=1,
        max_length=63,
        pattern=_DNS_LABEL,
        description="error-rate: the share of requests that the model or its server failed, client errors left out. "
        "latency-p99: the time that 99 of 100 requests take at most. With templateRef any other name.",
        json_schema_extra=form("must be lower-case letters, digits and '-'"),
    )
    template_ref: TemplateRef | None = Field(
        default=None,
        description="The administrator's query that measures it, where it is not compared with stable.",
    )
    compare_to: Literal["stable"] | None = Field(
        default=None, description="What it is compared with: stable, the revision that serves."
    )
    compare_mode: Literal["Difference", "Ratio"] | None = Field(
        default=None,
        description="Difference (of error-rate): the new revision's minus stable's. Ratio (of latency-p99): the new "
        "revision's divided by stable's.",
    )
    threshold_range: ThresholdRange | None = Field(
        default=None,
        description='How much worse it may be; {max: "0.02"} for error-rate and {max: "1.5"} for latency-p99 where '
        "it is absent. With templateRef, what the query's value may be.",
    )
    interval: Duration | None = Field(
        default=None,
        description="With templateRef: how often it is measured while the new revision has traffic; 1m by default.",
    )
    count: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="With templateRef: so many measurements with a number it takes to pass; 1 by default.",
    )
    failure_limit: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="With templateRef: so many measurements may be out of range; one more fails. 0 by default.",
    )
    inconclusive_limit: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="With templateRef: so many measurements may give no number; with one more it is measured no longer "
        "and a person decides. 0 by default.",
    )
    min_samples: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="So many requests each side must have answered before there is a verdict, and the new revision in "
        "each step before it is left; 50 by default.",
    )

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.templateRef) != (self.name in ['error-rate', 'latency-p99'])",
                "must be error-rate or latency-p99, or another name with a templateRef",
                fieldPath=".name",
            ),
            rule(
                f"!has(self.templateRef) || !({' || '.join(f'has(self.{name})' for name in _COMPARED)})",
                f"{', '.join(_COMPARED[:-1])} and {_COMPARED[-1]} are for error-rate and latency-p99 alone",
            ),
            rule(
                f"has(self.templateRef) || !({' || '.join(f'has(self.{name})' for name in _MEASURED)})",
                f"{', '.join(_MEASURED[:-1])} and {_MEASURED[-1]} are for a templateRef alone",
            ),
            rule(
                "!has(self.templateRef) || has(self.thresholdRange)", "a templateRef needs a thresholdRange"
            ),
            rule(
                "has(self.templateRef) || !has(self.thresholdRange) || !has(self.thresholdRange.min)",
                "min is for a templateRef alone: less than stable's is never too little",
            ),
            rule(
                "!has(self.compareMode) || (self.name == 'latency-p99') == (self.compareMode == 'Ratio')",
                "error-rate is compared by Difference, latency-p99 by Ratio",
            ),
            rule(
                f"self.name != 'latency-p99' || {_NO_LIMIT} || double(self.thresholdRange.max) >= 1.0",
                "latency-p99 is a ratio: max must be at least 1",
            ),
            rule(
                f"self.name != 'error-rate' || {_NO_LIMIT} || double(self.thresholdRange.max) < 1.0",
                "error-rate is a share of requests: max must be below 1",
            ),
        )
    )


class Analysis(Value):
    """How a canary is judged."""

    confidence: str | None = Field(
        default=None,
        max_length=19,
        pattern=_FRACTION,
        description='How sure a verdict must be, as a decimal in a string; "0.95" where it is absent.',
        json_schema_extra=form('must be a decimal number in a string, such as "0.95"')
        | rules(
            rule(
                f"!self.matches(r'{_FRACTION}') || (double(self) >= 0.5 && double(self) <= 0.9999)",
                "must be at least 0.5 and at most 0.9999",
            )
        ),
    )
    deadline: Duration | None = Field(
        default=None,
        description="How long a verdict may take from the first weight on, such as 24h, before onInconclusive "
        "applies; no limit where it is absent.",
    )
    on_inconclusive: Literal["Pause", "Promote", "Abort"] | None = Field(
        default=None,
        description="What becomes of a canary without a verdict at the deadline: Pause (the default) waits for a "
        "person, Promote lets it take over, Abort ends it and rejects nothing.",
    )
    metrics: tuple[AnalysisMetric, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=20,
        description="What is compared; error-rate and latency-p99 with their defaults where it is absent.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )


class Rollback(Value):
    """What becomes of a revision that fails."""

    mode: Literal["Automatic", "Manual"] | None = Field(
        default=None,
        description="Automatic (the default): its rollout ends and the old one gets all traffic. Manual: it gets no "
        "more traffic than it has and waits for a person's abort or promote; without a ready pod, or with other bytes "
        "than were pinned, it gets none.",
    )


class Route(Value):
    """Under which names the model is reached through the administrator's Gateway."""

    hosts: tuple[
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=253,
                pattern=_HOST,
                json_schema_extra=form("must be a host name in lower case, such as models.example.com"),
            ),
        ],
        ...,
    ] = Field(
        min_length=1,
        max_length=10,
        description="Host names, each of a form that the administrator permits in the namespace. The path is "
        "/seldon/<namespace>/<name>, which the model does not see.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )


class NetworkPolicy(Value):
    """Who may connect to the model's pods; where these may connect to is laid down in the ModelRegistry."""

    enabled: bool | None = Field(
        default=None,
        description="Whether there is a NetworkPolicy; true where it is absent. With false every pod reaches the "
        "model's pods, and they reach everything.",
    )
    from_: tuple[Peer, ...] | None = Field(
        default=None,
        alias="from",
        min_length=1,
        max_length=10,
        description="Who may send requests: pods or addresses. Any pod of the cluster where it is absent. Gateways, "
        "Prometheus and the operator may always.",
    )


class PodMonitor(Value):
    """How a Prometheus that is run by Prometheus Operator finds the model's pods."""

    enabled: bool | None = Field(
        default=None,
        description="Whether there is a PodMonitor; true where it is absent. There is none on a cluster that does not "
        "know the kind, nor where the administrator wants none.",
    )
    labels: Mapping[str, MonitorLabelValue] | None = Field(
        default=None,
        max_length=20,
        description="Labels of the PodMonitor, by which a Prometheus selects it: beside those that the administrator "
        "set, and instead of those of the same name.",
    )


class Monitoring(Value):
    """Who is led to the metrics of the model's pods."""

    pod_monitor: PodMonitor | None = Field(
        default=None,
        description="How Prometheus finds the pods; where it is absent, as the administrator has it.",
    )


class ModelDeploymentSpec(Value):
    """Which model is served, how it is run, and how a new version takes over."""

    model: Model = Field(description="Which version of which registered model is served.")
    predictor: Predictor = Field(
        default_factory=Predictor, description="How the model is run: server, replicas, resources."
    )
    pre_traffic: PreTraffic | None = Field(
        default=None, description="The gates that each pod passes before it takes traffic."
    )
    strategy: Strategy | None = Field(
        default=None,
        description="How a new revision replaces the one that serves: exactly one of canary (the default), blueGreen, "
        "rollingUpdate and recreate.",
    )
    analysis: Analysis | None = Field(
        default=None, description="How a canary is judged; only with the strategy canary."
    )
    rollback: Rollback | None = Field(default=None, description="What becomes of a revision that fails.")
    route: Route | None = Field(
        default=None,
        description="Under which names the model is reached through the administrator's Gateway; its own names where "
        "it is absent.",
    )
    monitoring: Monitoring | None = Field(
        default=None, description="Who is led to the metrics of the model's pods."
    )
    network_policy: NetworkPolicy | None = Field(
        default=None, description="Who may connect to the model's pods."
    )
    revision_history_limit: int | None = Field(
        default=None,
        ge=0,
        le=100,
        description="How many revisions that neither serve nor are on their way are kept, "
        "without pods, to go back to; 10 by default.",
    )
    progress_deadline_seconds: int | None = Field(
        default=None,
        ge=1,
        le=86400,
        description="How long the pods of a revision may take to become ready before the rollout is called "
        "stalled; 600 by default.",
    )
    paused: bool | None = Field(
        default=None,
        description="While true no new revision starts, gets more traffic or takes over; what serves is kept as it "
        "should be.",
    )

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.analysis) || !has(self.strategy) || has(self.strategy.canary)",
                "analysis is for the strategy canary alone: elsewhere the gates are the verdict",
            )
        )
    )

    @property
    def pod_monitor(self) -> PodMonitor:
        """What is asked of the PodMonitor: nothing special where nothing is said."""
        asked = self.monitoring.pod_monitor if self.monitoring else None
        return asked or PodMonitor()


class Condition(Value):
    """A metav1.Condition."""

    type: str = Field(max_length=316, description="What is said to hold or not, such as Ready.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    observed_generation: int = Field(ge=0, description="The metadata.generation that was looked at.")
    last_transition_time: datetime = Field(description="When status last changed.")
    reason: str = Field(min_length=1, max_length=1024, description="One CamelCase word for why.")
    message: str = Field(max_length=32768, description="Why, in one sentence with its numbers.")


class ClosedStatus(Value):
    """A revision that is not tried again by itself."""

    revision: str = Field(max_length=63, description="Name of the revision.")
    version: str = Field(max_length=63, description="The model version it serves.")
    reason: str = Field(
        max_length=1024, description="Why, as one word; Aborted and Undone are a person's doing."
    )
    message: str = Field(max_length=1024, description="Why, in one sentence.")
    since: datetime | None = Field(default=None, description="When it was closed.")
    rejected: bool = Field(
        description="Whether it is the model's own fault: then it stays closed when the registry names another "
        "version and this one again."
    )
    instead: str | None = Field(
        default=None, max_length=63, description="The revision that a person went back to (verb undo)."
    )
    under: str | None = Field(
        default=None,
        max_length=2048,
        description="Version and download URI that the registry named then; "
        "what is not rejected opens when it names something else.",
    )
    weight: int | None = Field(
        default=None,
        ge=0,
        le=100,
        description="Percent of the traffic that it had; absent where it never had any.",
    )
    acknowledged: bool | None = Field(
        default=None, description="Whether a person has seen it (verb ack): Stalled is no longer shown then."
    )


class TargetStatus(Value):
    """What the registry names, and the revision made for it."""

    name: str = Field(description="Name of the registered model.")
    alias: str | None = Field(default=None, description="The alias that is followed, if one is.")
    target_version: str | None = Field(default=None, description="The version that the registry names now.")
    target_revision: str | None = Field(
        default=None, description="The revision made for that version and this spec."
    )
    target_since: datetime | None = Field(default=None, description="When this revision became the target.")
    closed: ClosedStatus | None = Field(
        default=None, description="Why the target is not tried again by itself; absent while it may be."
    )
    approved_revision: str | None = Field(
        default=None,
        max_length=63,
        description="The revision that a person let go on (verb promote) and that has not started yet.",
    )
    restart: str | None = Field(
        default=None,
        max_length=128,
        description="The restart that was asked for and whose revision is not stored yet.",
    )


class RevisionStatus(Value):
    """One revision in one role."""

    revision: str = Field(
        description="Name of the revision; its ControllerRevision, Deployment and Service carry it."
    )
    version: str = Field(description="The model version it serves.")
    run_id: str | None = Field(default=None, description="The MLflow run that made the version.")
    digest: str | None = Field(
        default=None, description="SHA-256 over the artifacts that its pods were verified against."
    )
    ready_replicas: int = Field(default=0, ge=0, description="How many of its pods are ready.")
    started_at: datetime | None = Field(
        default=None, description="When its rollout began; only while it runs."
    )
    newer_image: str | None = Field(
        default=None,
        max_length=1024,
        description="The runtime's present image, where it is not the one that this revision runs: it comes with "
        "the next revision, or with the verb restart.",
    )


class HeldStatus(Value):
    """Why something waits for a person."""

    reason: str = Field(max_length=1024, description="Why, as one word.")
    message: str = Field(max_length=1024, description="Why, in one sentence.")


class MeasurementsStatus(Value):
    """The measurements of one metric, counted."""

    name: str = Field(max_length=63, description="The metric.")
    basis: str = Field(max_length=64, description="Which template and range they are of, as a hash.")
    successful: int = Field(default=0, ge=0, description="How many were in range.")
    failed: int = Field(default=0, ge=0, description="How many were not.")
    inconclusive: int = Field(default=0, ge=0, description="How many gave no number.")
    measured_at: datetime | None = Field(default=None, description="When the last one was taken.")
    value: str | None = Field(default=None, max_length=32, description="The last number.")
    why: str | None = Field(default=None, max_length=256, description="Why the last one gave none.")


class CanaryStatus(RevisionStatus):
    """The revision on its way, and how far it has come."""

    weight: int | None = Field(
        default=None, ge=0, le=100, description="Percent of the traffic that it shall have."
    )
    current_step_index: int | None = Field(
        default=None,
        ge=0,
        description="Index, from 0, of the entry of strategy.canary.steps that is carried out.",
    )
    weight_set_at: datetime | None = Field(default=None, description="When its weight was decided.")
    step_started_at: datetime | None = Field(
        default=None,
        description="When its weight came in force, or its preview began: from then on the pauses count.",
    )
    weight_since: datetime | None = Field(
        default=None, description="When it was first given traffic: from then on analysis.deadline counts."
    )
    stable_replicas: int | None = Field(
        default=None, ge=0, description="How many pods served when it was first given traffic."
    )
    steps: str | None = Field(
        default=None, max_length=64, description="Which steps the index speaks of, as a hash."
    )
    leaving: bool | None = Field(
        default=None, description="Whether its step is over and pods for the next one are awaited."
    )
    promoting: str | None = Field(
        default=None,
        max_length=1024,
        description="Why it takes over: its steps are over, and its full count of pods is awaited.",
    )
    held: HeldStatus | None = Field(
        default=None, description="Why it waits for a person's abort or promote, with rollback.mode Manual."
    )
    overruled_at: datetime | None = Field(
        default=None,
        description="When a person let it go on although it had failed: what was before is past.",
    )
    waiting_since: datetime | None = Field(
        default=None, description="Since when pods are awaited: progressDeadlineSeconds counts from then."
    )
    measurements: tuple[MeasurementsStatus, ...] = Field(
        default=(), max_length=20, description="What the administrator's queries gave so far."
    )


class TrafficShare(Value):
    """How much of the traffic one revision has."""

    revision: str = Field(max_length=63, description="Name of the revision.")
    version: str = Field(max_length=63, description="The model version it serves.")
    percent: int = Field(ge=0, le=100, description="Its share; all shares sum to 100.")
    tag: Literal["stable", "canary"] = Field(description="Its role.")


class MetricResult(Value):
    """What one metric says of the canary."""

    name: str = Field(max_length=63, description="The metric.")
    phase: Literal["Successful", "Failed", "Inconclusive"] = Field(
        description="Successful: the whole interval is within the threshold. Failed: it is wholly outside. "
        "Inconclusive: neither, or there is too little to tell."
    )
    value: str | None = Field(default=None, max_length=32, description="The measured value.")
    interval: tuple[Annotated[str, Field(max_length=32)], ...] | None = Field(
        default=None, max_length=2, description="Where the true value lies, with the confidence asked for."
    )
    threshold: str | None = Field(default=None, max_length=256, description="What it is held against.")
    samples: int = Field(default=0, ge=0, description="Requests of the canary that count.")
    reason: str | None = Field(
        default=None,
        max_length=63,
        description="NoData, TooFewSamples or ProviderError, where there is too little.",
    )
    message: str | None = Field(default=None, max_length=1024, description="The same in one clause.")


class AnalysisStatus(Value):
    """How the canary compares with stable."""

    phase: Literal["Running", "Successful", "Failed", "Inconclusive"] = Field(
        description="Successful: every metric is. Failed: one is. Inconclusive: the deadline passed without a verdict."
    )
    measured_at: datetime | None = Field(default=None, description="When the numbers below were taken.")
    metric_results: tuple[MetricResult, ...] = Field(
        default=(), max_length=20, description="What each metric says."
    )


class HistoryEntry(Value):
    """How the rollout of one revision ended."""

    revision: str = Field(max_length=63, description="Name of the revision.")
    version: str = Field(max_length=63, description="The model version it serves.")
    digest: str | None = Field(
        default=None, max_length=71, description="SHA-256 over its artifacts, once known."
    )
    outcome: Literal["Promoted", "Aborted", "Cancelled"] = Field(
        description="Promoted: it took over. Aborted: it failed, or a person ended it. "
        "Cancelled: something else was wanted before it was done."
    )
    reason: str = Field(max_length=1024, description="Why, as one word.")
    started_at: datetime | None = Field(default=None, description="When it began.")
    finished_at: datetime = Field(description="When it ended.")


class RejectedVersion(Value):
    """A version that failed by the model's own fault."""

    version: str = Field(max_length=63, description="The model version.")
    uri: str = Field(
        max_length=2048, description="Where its artifacts lie: a version of other artifacts is another one."
    )
    revision: str = Field(max_length=63, description="The revision that failed; the verb retry names it.")
    digest: str | None = Field(
        default=None, max_length=71, description="SHA-256 over its artifacts, once known."
    )
    reason: str = Field(max_length=1024, description="Why, as one word.")
    time: datetime | None = Field(default=None, description="When it failed.")


class Address(Value):
    """Where clients inside the cluster send requests."""

    url: str = Field(description="URL of the Service for HTTP.")


class ModelDeploymentStatus(Value):
    """What the operator last saw and did."""

    observed_generation: int | None = Field(
        default=None, description="The metadata.generation that this status speaks of."
    )
    phase: Literal["Pending", "Progressing", "Paused", "Healthy", "Degraded"] | None = Field(
        default=None, description="A summary of the conditions for people; programs read the conditions."
    )
    message: str | None = Field(default=None, description="What is going on, in one sentence.")
    url: str | None = Field(
        default=None, max_length=2048, description="Where clients reach it through the Gateway."
    )
    address: Address | None = Field(
        default=None, description="Where clients inside the cluster send HTTP requests."
    )
    grpc_url: str | None = Field(default=None, description="host:port for gRPC inside the cluster.")
    model: TargetStatus | None = Field(default=None, description="What the registry names.")
    stable: RevisionStatus | None = Field(default=None, description="The revision that serves.")
    canary: CanaryStatus | None = Field(
        default=None, description="The revision on its way to replace stable, if any."
    )
    traffic: tuple[TrafficShare, ...] = Field(
        default=(), max_length=2, description="Who has how much of the traffic now."
    )
    analysis: AnalysisStatus | None = Field(
        default=None, description="How the canary compares with stable, while it has traffic."
    )
    history: tuple[HistoryEntry, ...] = Field(
        default=(), max_length=10, description="How the last 10 rollouts ended, the newest last."
    )
    rejected: tuple[RejectedVersion, ...] = Field(
        default=(),
        max_length=20,
        description="The versions rejected last, at most 20, the newest last: they are not tried again with this "
        "spec, even when the registry names them again, until the verb retry.",
    )
    last_handled: Mapping[str, str] = Field(
        default_factory=dict,
        max_length=20,
        description="The last value of each verb that was handled, or its hash where it was malformed.",
    )
    paused_by_verb: bool | None = Field(
        default=None, description="Whether the verb pause holds; resume ends it."
    )
    rebuilt: str | None = Field(
        default=None,
        max_length=1024,
        description="Why a person must look before anything goes on, after the status was lost and rebuilt; "
        "resume ends it.",
    )
    replicas: int | None = Field(default=None, description="Pods of stable.")
    ready_replicas: int | None = Field(default=None, description="Ready pods of stable.")
    selector: str | None = Field(
        default=None, description="Label selector of stable's pods, for autoscalers."
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=20,
        description="Ready, ModelResolved, ArtifactVerified, PredictorReady, RoutesReady with a Gateway; Reconciling, "
        "Stalled, Paused and EnvironmentMismatch only while they hold.",
    )

    def condition(self, type_: str) -> Condition | None:
        """Find one condition."""
        return next((condition for condition in self.conditions if condition.type == type_), None)


class Metadata(Value):
    """The part of metadata that the operator reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    annotations: Mapping[str, str] = Field(default_factory=dict)
    deletion_timestamp: str | None = None


class ModelDeployment(Value):
    """Serves one registered model of MLflow: follows its version or alias, verifies its artifacts, rolls it out."""

    kind: Literal["ModelDeployment"] = "ModelDeployment"
    metadata: Metadata
    spec: ModelDeploymentSpec
    status: ModelDeploymentStatus = Field(default_factory=ModelDeploymentStatus)

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """Read an object as the API server gives it."""
        return cls.model_validate(body)


# --------------------------------------------------------------------------------------------- ModelRegistry


class SecretRef(Value):
    """Names a Secret in the operator's namespace."""

    name: str = Field(min_length=1, max_length=253, pattern=_DNS_SUBDOMAIN, description="Name of the Secret.")


class MLflow(Value):
    """The MLflow tracking server and how it is asked."""

    tracking_uri: str = Field(
        alias="trackingURI",
        max_length=500,
        pattern=r"^https?://[A-Za-z0-9._:\[\]-]+(/[A-Za-z0-9._~/-]*)?$",
        description="Address of the tracking server as pods and the operator reach it, such as http://mlflow.mlflow.svc:5000.",
        json_schema_extra=form(
            "must be http:// or https:// with host, port and path, such as http://mlflow.mlflow.svc:5000, without "
            "user name, query or fragment"
        ),
    )
    credentials_ref: SecretRef | None = Field(
        default=None,
        description="Secret in the operator's namespace with keys username and password, or token. Its name must also "
        "be listed in the chart's registrySecrets: the operator can read no other.",
    )
    ca_bundle_ref: ConfigMapRef | None = Field(
        default=None,
        description="ConfigMap in the operator's namespace whose key ca.crt holds the certificates (PEM) that the "
        "operator trusts for this server, instead of the public ones. Its name must also be listed in the chart's "
        "registryCABundles.",
    )
    poll_interval: Duration = Field(
        default="30s", description="How often a followed model is asked for, such as 30s (the default)."
    )


class Artifacts(Value):
    """One place that model artifacts may come from, and how the fetch container reaches it."""

    prefix: str = Field(
        min_length=1,
        max_length=500,
        pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/|mlflow-artifacts:/)([A-Za-z0-9._=-]+/)*$",
        description="A version's download URI must be under one prefix: s3://bucket/path/ or mlflow-artifacts:/ "
        "(through the tracking server); ends with a slash.",
        json_schema_extra=form(
            "must be s3://bucket/ or mlflow-artifacts:/, with folders of letters, digits and . _ = - below it, and end "
            "with a slash"
        ),
    )
    endpoint: str | None = Field(
        default=None,
        max_length=500,
        pattern=r"^https?://[A-Za-z0-9._:\[\]-]+$",
        description="Endpoint of an S3 store that is not AWS, such as http://s3.mlflow.svc:8333.",
        json_schema_extra=form(
            "must be http:// or https:// with host and port alone, such as http://s3.mlflow.svc:8333"
        ),
    )
    region: str | None = Field(
        default=None, max_length=63, pattern=r"^[a-z0-9-]+$", description="Region of the S3 store."
    )
    credentials_secret_name: str | None = Field(
        default=None,
        min_length=1,
        max_length=253,
        pattern=_DNS_SUBDOMAIN,
        description="Secret in the ModelDeployment's namespace: keys accessKeyId and secretAccessKey for s3://, "
        "username and password or token for mlflow-artifacts:/. Only the fetch container sees it.",
    )
    role_arn: str | None = Field(
        default=None,
        alias="roleARN",
        max_length=700,
        pattern=_ROLE_ARN,
        description="AWS role that the fetch container assumes with a token of the pod's own (audience "
        "sts.amazonaws.com), instead of credentialsSecretName; for s3:// alone.",
        json_schema_extra=form("must be a role's ARN, such as arn:aws:iam::123456789012:role/models-reader"),
    )
    sts_endpoint: str | None = Field(
        default=None,
        alias="stsEndpoint",
        max_length=500,
        pattern=r"^https?://[A-Za-z0-9._:\[\]-]+$",
        description="Where roleARN is assumed, if not at AWS' own address, such as a private endpoint.",
        json_schema_extra=form("must be http:// or https:// with host and port alone"),
    )
    ca_bundle_ref: ConfigMapRef | None = Field(
        default=None,
        description="ConfigMap in the ModelDeployment's namespace whose key ca.crt holds the certificates (PEM) that "
        "the fetch container trusts for this place, beside the public ones.",
    )
    egress: tuple[EgressRule, ...] = Field(
        default=(),
        max_length=10,
        description="Where the fetch container may connect to, beside DNS; the endpoint's port at any address where it "
        "is absent. Link-local addresses (169.254.0.0/16) never belong to it.",
    )

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.roleARN) || !has(self.credentialsSecretName)",
                "set at most one of roleARN and credentialsSecretName",
            ),
            rule(
                "!has(self.roleARN) || self.prefix.startsWith('s3://')",
                "roleARN is for prefixes of s3:// alone",
            ),
            rule("!has(self.stsEndpoint) || has(self.roleARN)", "set stsEndpoint only with roleARN"),
        )
    )


class AllowedNamespaces(Value):
    """Which namespaces may use the registry."""

    from_: Literal["All", "Selector"] = Field(
        default="All", alias="from", description="All, or only those that the selector matches."
    )
    selector: LabelSelector | None = Field(default=None, description="Labels of the permitted namespaces.")

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "(has(self.from) && self.from == 'Selector') == has(self.selector)",
                "set selector exactly when from is Selector",
            )
        )
    )


class ModelRegistrySpec(Value):
    """Where models come from, and who may use them."""

    mlflow: MLflow = Field(description="The MLflow tracking server and how it is asked.")
    artifacts: tuple[Artifacts, ...] = Field(
        min_length=1,
        max_length=20,
        description="The places that artifacts may come from; the longest matching prefix counts.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["prefix"]},
    )
    allowed_namespaces: AllowedNamespaces = Field(
        default_factory=AllowedNamespaces,
        description="Which namespaces may use the registry; all where it is absent.",
    )

    @property
    def poll_interval(self) -> timedelta:
        """How often a followed model is asked for."""
        return timedelta(seconds=seconds(self.mlflow.poll_interval))


class ModelRegistryStatus(Value):
    """Whether the registry can be reached."""

    conditions: tuple[Condition, ...] = Field(
        default=(), max_length=20, description="Ready: whether the registry answers."
    )


class ModelRegistry(Value):
    """A registry of models, written by the cluster's administrator: its address, its stores, and who may use it."""

    kind: Literal["ModelRegistry"] = "ModelRegistry"
    metadata: Metadata
    spec: ModelRegistrySpec
    status: ModelRegistryStatus = Field(default_factory=ModelRegistryStatus)

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """Read an object as the API server gives it."""
        return cls.model_validate(body)
