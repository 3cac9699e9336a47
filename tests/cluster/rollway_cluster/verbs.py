"""The verbs that bring a cluster up and down and look at it."""

import argparse
import contextlib
import sys

from rollway_cluster import binaries
from rollway_cluster.cluster import select
from rollway_cluster.errors import ClusterError
from rollway_cluster.images import build_images


def up(_: argparse.Namespace) -> None:
    """Bring the selected cluster up."""
    select().up()


def down(_: argparse.Namespace) -> None:
    """Take it down."""
    select().down()


def status(_: argparse.Namespace) -> int:
    """Show it; the exit code says whether it is well."""
    return 0 if select().status() else 1


def logs(arguments: argparse.Namespace) -> None:
    """Print logs."""
    select().logs(arguments.component)


def kubeconfig(_: argparse.Namespace) -> None:
    """Print the kubeconfig file's path."""
    path = select().kubeconfig_path
    if not path.exists():
        raise ClusterError(f"{path} does not exist: bring the cluster up first")
    print(path)


def load_image(arguments: argparse.Namespace) -> None:
    """Load archives and print what came of them."""
    for name, reference in select().load_images(arguments.archives).items():
        print(f"{name} {reference}")


def build(_: argparse.Namespace) -> None:
    """Build the local cluster's programs."""
    binaries.build()


def path(arguments: argparse.Namespace) -> None:
    """Print a program's path."""
    known = [name for module in binaries.MODULES for name in module.commands]
    if arguments.program not in known:
        raise ClusterError(f"no program is called {arguments.program}: there are {', '.join(known)}")
    with contextlib.redirect_stdout(sys.stderr):  # what the build says is not the answer
        found = binaries.command(arguments.program)
    print(found)


def images(arguments: argparse.Namespace) -> None:
    """Build images and print where they are."""
    for name, archive in build_images(arguments.names).items():
        print(f"{name} {archive}")
