"""The command line: ``python -m rollway_cluster VERB``."""

import argparse
import importlib
import sys
from pathlib import Path

from rollway_cluster.errors import ClusterError

# Each verb is a function of its own module that takes the parsed arguments and may return an exit code.
VERBS = {
    "up": ("verbs:up", "bring a cluster up, or repair it"),
    "down": ("verbs:down", "take it down and leave nothing"),
    "status": ("verbs:status", "show what runs and what works"),
    "logs": ("verbs:logs", "print a component's log, or the end of each"),
    "kubeconfig": ("verbs:kubeconfig", "print the kubeconfig file's path"),
    "load-image": ("verbs:load_image", "load image archives and print each name with its digest"),
    "build": ("verbs:build", "build the local cluster's programs"),
    "demo": ("demo:up", "train, serve, predict, and change the version under traffic"),
    "demo-down": ("demo:down", "remove what the demo made"),
    "path": ("verbs:path", "print where a program of the local cluster is, built first if need be"),
    "images": ("verbs:images", "build the container images and print each one's archive"),
}


def main() -> int:
    """Run one verb; what goes wrong is one message."""
    parser = argparse.ArgumentParser(prog="rollway_cluster", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    parsers = {name: verbs.add_parser(name, help=text) for name, (_, text) in VERBS.items()}
    parsers["logs"].add_argument("component", nargs="?")
    parsers["load-image"].add_argument("archives", nargs="+", type=Path, metavar="FILE.tar")
    parsers["path"].add_argument("program")
    parsers["images"].add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    module, function = VERBS[arguments.verb][0].split(":")
    run = getattr(importlib.import_module(f"rollway_cluster.{module}"), function)
    try:
        return int(run(arguments) or 0)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
