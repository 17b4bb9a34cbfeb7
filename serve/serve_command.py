"""`medphantom serve`: the service on this machine."""

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.console import Console

from gen.errors import InvalidInput

if TYPE_CHECKING:  # Ray takes seconds to import
    from serve.settings import AppArgs

WATCH_S = 5.0


def command(
    host: Annotated[str, typer.Option(help="Address; only 127.0.0.1 may do without keys")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    config: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="YAML of arguments, or a Serve config"),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="What callers may name; may be repeated")
    ] = None,
    dashboard: Annotated[
        bool, typer.Option(help="Ray's dashboard on 127.0.0.1:8265, behind its token")
    ] = False,
) -> None:
    """Serve images over HTTP: an API, jobs that survive, and a page to try it.

    Jobs, keys and results are kept in the data folder (MEDPHANTOM_DATA, by default ~/.medphantom),
    or where MEDPHANTOM_STORE and MEDPHANTOM_RESULTS say. Started again after any crash, the
    service finishes every job it had accepted.

    Examples:

    medphantom serve

    medphantom keys create me && medphantom serve --host 0.0.0.0

    medphantom serve --config service.yaml
    """
    from jobs.hosts import is_loopback
    from jobs.keys import KeyStore
    from serve.settings import check_exposure

    fields = read_config(config) if config else {}
    fields.setdefault("require_keys", not is_loopback(host))
    if model:
        fields["models"] = model
    args = checked(fields)
    check_exposure(args, host)
    keys = KeyStore(args.store)
    if args.require_keys and not keys.any():
        raise InvalidInput(
            "API keys are required, but there is none, so nobody could use this service; make one: "
            "medphantom keys create NAME"
        )
    keys.close()
    run_service(args, host, port, dashboard)


def read_config(path: Path) -> dict[str, Any]:
    """Arguments from a YAML file that holds them, or from a Serve config around them."""
    content = yaml.safe_load(path.read_text()) or {}
    if isinstance(content, dict) and "applications" in content:
        content = content["applications"][0].get("args", {})
    if not isinstance(content, dict):
        raise InvalidInput(f"{path} must hold names and values, as deploy/serve.yaml does")
    return dict(content)


def checked(fields: dict[str, Any]) -> "AppArgs":
    """Arguments, or an error that names the first wrong one."""
    from pydantic import ValidationError

    from serve.settings import AppArgs

    try:
        return AppArgs.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def run_service(args: "AppArgs", host: str, port: int, dashboard: bool) -> None:
    """Start a cluster of this machine and serve until a signal comes."""
    import ray
    from ray import serve

    from jobs.cluster import is_alive, start_ray
    from serve.app import build

    console = Console(stderr=True)
    stop = threading.Event()
    with console.status("starting Ray and loading the models"):
        start_ray(dashboard)
        serve.start(http_options={"host": host, "port": port})
        serve.run(build(args), name="medphantom", route_prefix="/")
    for number in (signal.SIGINT, signal.SIGTERM):  # now, since Ray takes them for itself
        signal.signal(number, lambda *_: stop.set())
    console.print(
        f"[bold]http://{host}:{port}[/bold] is the page, /docs the API. "
        f"Jobs are kept in {_place(args.store)}. Ctrl-C stops; jobs go on at the next start."
    )
    while not stop.wait(WATCH_S):
        if not is_alive():
            raise InvalidInput("Ray has died; start the service again, it will finish its jobs")
    with console.status("letting requests finish"):
        serve.shutdown()
        ray.shutdown()


def _place(url: str) -> str:
    """A database without its password."""
    return url.split("@")[-1] if "@" in url else url
