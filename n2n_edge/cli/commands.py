"""The group of commands, which doesn't take another's exit for its own."""

import sys
from typing import Any

from typer.core import TyperGroup

__all__ = ["Commands"]


class Commands(TyperGroup):
    """Commands that end by returning or by one of typer's own exceptions, never by `SystemExit`.

    A `SystemExit` that comes out of a command was raised by code that the command ran, such as a module of the user's.
    If it passed, its code would be taken for the command's: 0, as a rule, for a gate that has evaluated nothing.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the command; any exception that ends a process becomes an `InputError`."""
        from n2n_edge.foreign import foreign_code

        try:
            return super().invoke(ctx)
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException:
            with foreign_code(f"code that '{' '.join(sys.argv[1:2])}' ran"):
                raise
