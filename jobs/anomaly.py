"""`medphantom anomaly`: where a scan departs from healthy anatomy, and from which value on."""

import typer

from jobs import anomaly_calibration
from jobs.default_command import DefaultCommand

commands = typer.Typer(
    cls=DefaultCommand,
    no_args_is_help=True,
    help="Where a scan departs from healthy anatomy.",
)
commands.command("calibrate")(anomaly_calibration.command)
