"""What commands say to programs, JSON and YAML, and aside, on standard error."""

import json
from typing import Any

import click


def show_data(data: Any, form: str) -> None:
    """Print data as JSON or YAML."""
    if form == "json":
        click.echo(json.dumps(data, indent=2))
    else:
        import yaml  # noqa: PLC0415 - a command that asks no cluster starts without it

        click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), nl=False)


def remark(text: str) -> None:
    """Say something aside."""
    click.echo(text, err=True)
