"""Run `kubectl rollway`."""

from kubectl_rollway.commandline import plugin


def main() -> None:
    """Run it on the process's own arguments."""
    plugin(prog_name="kubectl rollway")


if __name__ == "__main__":
    main()
