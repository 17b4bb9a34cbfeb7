"""`medphantom keys`: who may use the service."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from jobs.settings import Settings

commands = typer.Typer(
    no_args_is_help=True,
    help="API keys of the service: make, list, revoke.\n\nThey are kept as hashes in the database "
    "of the jobs (MEDPHANTOM_STORE, or the data folder).",
)
Store = Annotated[
    str | None, typer.Option("--store", help="SQLAlchemy URL; MEDPHANTOM_STORE, or the data folder")
]
COLUMNS = ("id", "name", "scopes", "work_per_hour", "created_at", "last_used_at", "revoked_at")


@commands.command("create")
def create_command(
    name: Annotated[str, typer.Argument(help="Whose key it is, for lists")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="generate, jobs, metrics, pacs for studies of patients in a PACS, or data for data"
            " sets of configured stores; generate and jobs if none"
        ),
    ] = None,
    work_per_hour: Annotated[
        float | None, typer.Option(min=0, help="Quota in megapixel steps; none if not given")
    ] = None,
    store: Store = None,
) -> None:
    """Make a key. Its secret is shown once, on stdout.

    An image of 256 x 256 with 25 guided steps costs 3.3 megapixel steps.

    Example: medphantom keys create dr-example --work-per-hour 5000
    """
    from jobs.keys import Scope

    scopes = [Scope(each) for each in _known(scope)] if scope else [Scope.GENERATE, Scope.JOBS]
    key, secret = _keys(store).create(name, scopes, work_per_hour)
    typer.echo(json.dumps({**_record(key), "secret": secret}))
    Console(stderr=True).print(
        "Send it as [bold]Authorization: Bearer ...[/bold]; it is not shown again."
    )


@commands.command("list")
def list_command(store: Store = None) -> None:
    """List the keys, without their secrets.

    Example: medphantom keys list | jq .name
    """
    records = [_record(key) for key in _keys(store).list()]
    table = Table()
    for column in COLUMNS:
        # the id is what `keys revoke` is given
        table.add_column(column.replace("_", " "), overflow="fold", no_wrap=column == "id")
    for record in records:
        typer.echo(json.dumps(record))
        table.add_row(*(_cell(column, record[column]) for column in COLUMNS))
    Console(stderr=True).print(table)


@commands.command("revoke")
def revoke_command(
    key_id: Annotated[str, typer.Argument(help="Its id, see `medphantom keys list`")],
    store: Store = None,
) -> None:
    """Let a key no longer pass. Jobs it started go on.

    Example: medphantom keys revoke 0123456789ab
    """
    typer.echo(json.dumps(_record(_keys(store).revoke(key_id))))


def _cell(column: str, value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    if value is None:
        return ""
    return str(value)[:16].replace("T", " ") if column.endswith("_at") else str(value)


def _known(scopes: list[str]) -> list[str]:
    from gen.errors import InvalidInput
    from jobs.keys import Scope

    for scope in scopes:
        if scope not in list(Scope):
            raise InvalidInput(f"scope is {scope!r}, but must be one of {', '.join(Scope)}")
    return scopes


def _keys(store: str | None) -> Any:
    from jobs.keys import KeyStore

    return KeyStore(store or Settings().store_url)


def _record(key: Any) -> dict[str, Any]:
    record = asdict(key) | {"scopes": sorted(map(str, key.scopes))}
    for name in ("created_at", "last_used_at", "revoked_at"):
        seconds = record[name]
        record[name] = seconds and datetime.fromtimestamp(seconds, UTC).isoformat()
    return record
