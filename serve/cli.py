"""The entry point `medphantom`: the commands of the jobs, and those of the service."""

import os

from jobs import bench
from jobs.cli import app
from serve import bench_command, bench_overload, keys_command, serve_command

bench.commands.command("serve")(bench_command.command)
bench.commands.command("overload")(bench_overload.command)
app.command("serve")(serve_command.command)
app.add_typer(keys_command.commands, name="keys")


def main() -> None:
    """Run the command line."""
    # under `uv run`, Ray would build each of its workers an environment of its own
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    app()
