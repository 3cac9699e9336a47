"""Label selectors of Kubernetes: whether one takes an object's labels, and what the object lacks where not."""

from collections.abc import Iterator, Mapping

from kubectl_rollway.objects import Fields


def lacking(selector: Fields, labels: Mapping[str, str]) -> tuple[str, ...]:
    """Give what `kubectl label` would have to be told so that a selector takes an object; nothing where it does.

    `{matchLabels: {release: stack}}` and no label give `release=stack`; what must go is written `release-`. An empty
    selector takes all; whether an absent one does depends on the field that it is missing from.
    """
    return tuple(
        sorted({*_of_labels(selector.mapping("matchLabels"), labels), *_of_expressions(selector, labels)})
    )


def _of_labels(wanted: Mapping[str, str], labels: Mapping[str, str]) -> Iterator[str]:
    return (f"{key}={value}" for key, value in wanted.items() if labels.get(key) != value)


def _of_expressions(selector: Fields, labels: Mapping[str, str]) -> Iterator[str]:
    for term in selector.each("matchExpressions"):
        key, operator, values = term.text("key"), term.text("operator"), term.texts("values")
        if operator == "In" and labels.get(key) not in values:
            yield f"{key}={values[0] if values else ''}"
        elif operator == "Exists" and key not in labels:
            yield f"{key}=true"
        elif (operator == "NotIn" and labels.get(key) in values) or (
            operator == "DoesNotExist" and key in labels
        ):
            yield f"{key}-"
