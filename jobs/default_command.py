"""A group of commands that is a command itself: `medphantom anomaly PATH`, `anomaly calibrate`."""

from typing import Any, ClassVar

from typer.core import TyperGroup


class DefaultCommand(TyperGroup):
    """What does not begin with the name of a command is for the one named `default`.

    A file of such a name is given as ./NAME.
    """

    default: ClassVar[str] = "map"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command's name where none is."""
        return super().parse_args(ctx, self.named(args, ctx.help_option_names))

    def named(self, args: list[str], help_names: list[str]) -> list[str]:
        """The words with the name of a command before them."""
        if not args or args[0] in (*self.commands, *help_names):
            return args
        return [self.default, *args]
