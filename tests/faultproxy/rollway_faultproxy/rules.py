"""What the proxy does to which calls: rules are data, and each counts how often it fired."""

import asyncio
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from rollway_faultproxy.calls import Call


class Value(BaseModel):
    """Frozen, and a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Match(Value):
    """Which calls a rule speaks of; what is left out matches all."""

    method: str = Field(default="", description="A regular expression for the whole method: PATCH|POST.")
    path: str = Field(default="", description="A regular expression found in the path with its query.")
    verb: str = Field(default="", description="A regular expression for the whole verb: create|apply.")
    resource: str = Field(default="", description="A regular expression for the whole of: deployments/scale.")
    namespace: str = Field(default="", description="The namespace.")
    about: str = Field(default="", description="A regular expression found in the path or in the body.")
    mutating: bool | None = Field(default=None, description="Only calls that may change what is stored.")

    def holds(self, call: Call, body: bytes = b"") -> bool:
        """Tell whether a call is meant."""
        return (
            _whole(self.method, call.method)
            and _whole(self.verb, call.verb)
            and _whole(self.resource, call.resource)
            and self.namespace in ("", call.namespace)
            and self.mutating in (None, call.mutating)
            and re.search(self.path, call.path) is not None
            and (
                not self.about or re.search(self.about, f"{call.path}\n{body.decode('latin-1')}") is not None
            )
        )


def _whole(pattern: str, text: str) -> bool:
    return not pattern or re.fullmatch(pattern, text) is not None


class Pass(Value):
    """Do nothing but count."""

    do: Literal["pass"] = "pass"


class Answer(Value):
    """Answer in the server's place, which hears nothing of it."""

    do: Literal["answer"] = "answer"
    status: int
    headers: dict[str, str] = {}
    body: str = ""


class Delay(Value):
    """Wait, then forward."""

    do: Literal["delay"] = "delay"
    seconds: float


class Hold(Value):
    """Forward when the rule is taken away, and not before."""

    do: Literal["hold"] = "hold"


class Cut(Value):
    """End the connection: before the call is forwarded, after its answer came, or amid the answer."""

    do: Literal["cut"] = "cut"
    when: Literal["before", "after", "amid"]


class HalfClose(Value):
    """Send the first half of the answer and an end of stream, and go on to listen."""

    do: Literal["half-close"] = "half-close"


class Kill(Value):
    """Kill a process: before the call is forwarded (it never is), or after its answer came (nobody hears it)."""

    do: Literal["kill"] = "kill"
    pid: int
    when: Literal["before", "after"]


class Freeze(Value):
    """Stop a process, forward the call that it has sent, and let the process go on after a while."""

    do: Literal["freeze"] = "freeze"
    pid: int
    seconds: float


class Watch(Value):
    """Change a stream of events."""

    do: Literal["watch"] = "watch"
    silent: bool = Field(default=False, description="Pass on nothing, and never end.")
    replace: dict[str, str] = Field(default={}, description="In each event, texts and what stands for them.")
    inject: tuple[dict[str, Any], ...] = Field(default=(), description="Events of our own.")
    after: float = Field(default=0.0, description="How many seconds after the start they are sent.")
    close_after: float | None = Field(default=None, description="When the stream ends, in seconds.")


Action = Annotated[
    Pass | Answer | Delay | Hold | Cut | HalfClose | Kill | Freeze | Watch, Field(discriminator="do")
]


class Rule(Value):
    """One action on some of the calls that match."""

    match: Match = Match()
    action: Action
    skip: int = Field(default=0, ge=0, description="So many calls that match are let through first.")
    times: int | None = Field(default=None, ge=1, description="So many are acted on; all where it is absent.")


RULE: TypeAdapter[Rule] = TypeAdapter(Rule)


@dataclass
class Standing:
    """A rule in force, and its counts."""

    name: str
    rule: Rule
    matched: int = 0
    fired: int = 0
    withdrawn: asyncio.Event = field(default_factory=asyncio.Event)

    def takes(self, call: Call, body: bytes) -> bool:
        """Count a call that matches; tell whether this rule acts on it."""
        if not self.rule.match.holds(call, body):
            return False
        self.matched += 1
        place = self.matched - self.rule.skip
        return place >= 1 and (self.rule.times is None or place <= self.rule.times)


class Rules:
    """The rules in force by name; of several that would act on a call, the one that stands longest does."""

    def __init__(self) -> None:
        self._standing: dict[str, Standing] = {}

    def put(self, name: str, rule: Rule) -> None:
        """Put a rule in force, in place of one of its name."""
        self.withdraw(name)
        self._standing[name] = Standing(name, rule)

    def withdraw(self, name: str) -> None:
        """Take a rule away; what it holds goes on."""
        if (standing := self._standing.pop(name, None)) is not None:
            standing.withdrawn.set()

    def clear(self) -> None:
        """Take every rule away."""
        for name in tuple(self._standing):
            self.withdraw(name)

    def choose(self, call: Call, body: bytes = b"") -> Standing | None:
        """Find the rule that acts on a call; every rule that matches counts it."""
        taking = [standing for standing in self._standing.values() if standing.takes(call, body)]
        if not taking:
            return None
        taking[0].fired += 1
        return taking[0]

    def shown(self) -> dict[str, dict[str, Any]]:
        """Give the rules with their counts, as JSON has them."""
        return {
            name: {
                "rule": standing.rule.model_dump(),
                "matched": standing.matched,
                "fired": standing.fired,
            }
            for name, standing in self._standing.items()
        }
