"""The entry point `medphantom`."""

from jobs.cli import app


def main() -> None:
    """Run the command line."""
    app()
