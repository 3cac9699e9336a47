"""Ask the model that is served: the held-out rows once over every protocol, or constant traffic.

Every answer is one JSON line on standard output, so that another process can compare it with the model. Exit codes:
0 every request was answered, 1 at least one failed, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import httpx

from rollway_training import protocols
from rollway_training.protocols import Answer
from rollway_training.samples import SAMPLES, held_out_rows
from rollway_training.traffic import Due, Mode, Summary, failed, plan

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    import pandas as pd


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], Coroutine[Any, Any, bool]] = options.command
    return 0 if asyncio.run(run(options)) else 1


async def _predict(options: argparse.Namespace) -> bool:
    rows = held_out_rows(options.sample)
    async with _rest(options) as client, protocols.channel(options.grpc) as channel:
        questions: dict[str, Callable[[], Awaitable[Answer]]] = {
            "rest-v2": lambda: protocols.rest_v2(client, options.model, rows),
            "grpc-v2": lambda: protocols.grpc_v2(channel, options.model, rows, options.route),
            "invocations": lambda: protocols.invocations(client, rows),
        }
        complete = True
        for protocol, question in questions.items():
            answer = await _within(options.timeout, question())
            _say({"protocol": protocol} | asdict(answer))
            complete = complete and answer.outputs is not None
    return complete


async def _load(options: argparse.Namespace) -> bool:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    summary = Summary()
    rows = held_out_rows(options.sample)
    began = loop.time()
    async with (
        _rest(options) as kept,
        _rest(options, keep=False) as fresh,
        protocols.channel(options.grpc) as channel,
        asyncio.TaskGroup() as requests,
    ):
        ask: dict[Mode, Callable[[pd.DataFrame], Awaitable[Answer]]] = {
            Mode.REST_KEPT: lambda row: protocols.rest_v2(kept, options.model, row),
            Mode.REST_FRESH: lambda row: protocols.rest_v2(fresh, options.model, row),
            Mode.GRPC_KEPT: lambda row: protocols.grpc_v2(channel, options.model, row, options.route),
            Mode.GRPC_FRESH: lambda row: _over_fresh_channel(options, row),
        }
        for due in plan(options.rate, options.seconds, len(rows)):
            if await _stopped(stop, began + due.after - loop.time()):
                break
            answer = _within(options.timeout, ask[due.mode](rows.iloc[[due.row]]))
            requests.create_task(_record(due, answer, summary))
    _say({"summary": summary.totals() | {"seconds": round(loop.time() - began, 3)}})
    return summary.failed == 0


async def _over_fresh_channel(options: argparse.Namespace, row: pd.DataFrame) -> Answer:
    async with protocols.channel(options.grpc) as channel:
        return await protocols.grpc_v2(channel, options.model, row, options.route)


async def _record(due: Due, answering: Awaitable[Answer], summary: Summary) -> None:
    sent, began = time.time(), time.perf_counter()
    answer = await answering
    record = {
        "number": due.number,
        "time": round(sent, 6),
        "seconds": round(time.perf_counter() - began, 6),
        "mode": due.mode,
        "row": due.row,
    } | asdict(answer)
    record["failed"] = failed(record)
    summary.count(record)
    _say(record)


async def _within(seconds: float, question: Awaitable[Answer]) -> Answer:
    try:
        async with asyncio.timeout(seconds):
            return await question
    except TimeoutError:
        return Answer(status="TIMEOUT", error=f"no answer in {seconds:g} s")
    except (httpx.HTTPError, KeyError, ValueError) as error:
        return Answer(status="ERROR", error=f"{type(error).__name__}: {error}")


async def _stopped(stop: asyncio.Event, seconds: float) -> bool:
    """Wait for ``seconds`` or until a signal came; return whether it did."""
    try:
        async with asyncio.timeout(max(seconds, 0)):
            await stop.wait()
    except TimeoutError:
        pass
    return stop.is_set()


def _rest(options: argparse.Namespace, *, keep: bool = True) -> httpx.AsyncClient:
    """Return a client that passes no proxy and retries nothing; without ``keep``, each request has its connection."""
    return httpx.AsyncClient(
        base_url=options.http,
        timeout=options.timeout,
        trust_env=False,
        headers={} if keep else {"connection": "close"},
        limits=httpx.Limits(max_keepalive_connections=None if keep else 0),
    )


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rollway_training.client", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="{predict,load}")
    predict = commands.add_parser("predict", help="send all held-out rows over each protocol")
    predict.set_defaults(command=_predict)
    load = commands.add_parser("load", help="send one row at a time, at a constant rate")
    load.set_defaults(command=_load)
    load.add_argument("--rate", type=_positive, default=20.0, help="requests a second (default 20)")
    load.add_argument("--seconds", type=_positive, help="default: until SIGTERM")
    for command in (predict, load):
        command.add_argument("--http", required=True, metavar="URL", help="http://host:port of the model")
        command.add_argument("--grpc", required=True, metavar="HOST:PORT")
        command.add_argument(
            "--route",
            type=_route,
            default=(),
            metavar="NAMESPACE/NAME",
            help="the ModelDeployment, where a Gateway must be told which one gRPC calls are for",
        )
        command.add_argument("--model", required=True, help="the name that the server gives the model")
        command.add_argument("--sample", choices=sorted(SAMPLES), default="diabetes")
        command.add_argument("--timeout", type=_positive, default=10.0, help="seconds a request (default 10)")
    return parser


def _route(text: str) -> protocols.Metadata:
    namespace, slash, name = text.partition("/")
    if not (namespace and slash and name):
        raise argparse.ArgumentTypeError(f"{text} is not NAMESPACE/NAME")
    return (("seldon", name), ("namespace", namespace))


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


if __name__ == "__main__":
    sys.exit(main())
