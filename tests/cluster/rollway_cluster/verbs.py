"""The verbs that bring a cluster up and down and look at it."""

import argparse

from rollway_cluster import binaries
from rollway_cluster.cluster import select
from rollway_cluster.errors import ClusterError


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
