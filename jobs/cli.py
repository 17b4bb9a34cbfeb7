"""The command line: one command for each job, errors as one line and exit code 2.

Records go to stdout as JSON lines, so that they can be piped; words for people go to stderr.
torch and diffusers are imported by a job when it runs, never here.
"""

from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from gen.errors import (
    Conflict,
    InvalidInput,
    MedphantomError,
    ModelRefused,
    NotAllowed,
    NotFound,
)
from jobs import (
    bench,
    bench_anomaly,
    bench_jobs,
    bench_large,
    bench_minority,
    evaluate,
    generate,
    large,
    minority_calibration,
    minority_scores,
    models,
    train,
)
from jobs.anomaly import command as anomaly
from jobs.audit import command as audit
from jobs.augment import command as augment
from jobs.runner import command as runner

FAILED, BAD_INPUT = 1, 2  # the latter is the code of a wrong option, too
WRONG = (InvalidInput, ModelRefused, NotFound, Conflict, NotAllowed)  # the same again will not do


class Commands(TyperGroup):
    """A group whose commands end with a message, not a traceback, on an error of ours."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except MedphantomError as error:
            Console(stderr=True).print(f"[red]Error:[/red] {escape(str(error))}", soft_wrap=True)
            raise typer.Exit(BAD_INPUT if isinstance(error, WRONG) else FAILED) from error


app = typer.Typer(
    name="medphantom",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Synthetic medical images: generate them, train what makes them.\n\n"
    'Start with: medphantom generate "chest x-ray of a child with pneumonia"\n\n'
    "What can be used as --model: medphantom models list\n\n"
    "Every image is synthetic and marked so; none is for diagnosis. "
    "Records are JSON lines on stdout, progress and messages are on stderr. "
    "Exit codes: 0 done, 1 failed, 2 wrong input or refused model.",
)
app.command("generate")(generate.command)
app.command("large")(large.command)
app.add_typer(augment.commands, name="augment")
app.add_typer(anomaly.commands, name="anomaly")
app.add_typer(runner.commands, name="jobs")
app.add_typer(models.commands, name="models")
train.commands.command("minority-scores")(minority_scores.command)
train.commands.command("minority-calibration")(minority_calibration.command)
app.add_typer(train.commands, name="train")
app.add_typer(evaluate.commands, name="evaluate")
app.command("audit")(audit.command)
bench.commands.command("anomaly")(bench_anomaly.command)
bench.commands.command("jobs")(bench_jobs.command)
bench.commands.command("large")(bench_large.command)
bench.commands.command("minority")(bench_minority.command)
app.add_typer(bench.commands, name="bench")
