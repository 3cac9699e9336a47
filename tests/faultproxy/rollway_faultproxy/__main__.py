"""Run the proxy: `python -m rollway_faultproxy --kubeconfig FILE --write-kubeconfig FILE`, or `--upstream URL`."""

import argparse
import asyncio
import signal
from pathlib import Path

from aiohttp import web

from rollway_faultproxy.control import control
from rollway_faultproxy.proxy import Proxy
from rollway_faultproxy.upstream import Upstream, kubeconfig


async def run(arguments: argparse.Namespace) -> None:
    """Stand before a server until a signal comes."""
    upstream = (
        Upstream.of_kubeconfig(arguments.kubeconfig) if arguments.kubeconfig else Upstream(arguments.upstream)
    )
    proxy = Proxy(upstream)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with proxy.listen(arguments.port) as url:
        if arguments.write_kubeconfig:
            arguments.write_kubeconfig.write_text(kubeconfig(url, upstream.context))
        runner = web.AppRunner(control(proxy), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", arguments.control_port).start()
            await ended.wait()
        finally:
            await runner.cleanup()


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="rollway_faultproxy", description=__doc__)
    behind = parser.add_mutually_exclusive_group(required=True)
    behind.add_argument("--upstream", metavar="URL", help="the server behind, as it is")
    behind.add_argument(
        "--kubeconfig", type=Path, metavar="FILE", help="the API server behind, and its login"
    )
    parser.add_argument("--port", type=int, default=0, help="where callers are answered")
    parser.add_argument("--control-port", type=int, default=0, help="where rules are set")
    parser.add_argument("--write-kubeconfig", type=Path, metavar="FILE", help="write how to reach the proxy")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
