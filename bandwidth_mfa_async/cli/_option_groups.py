"""Groups of options in the help of a command."""

from __future__ import annotations

from typing import Any

import click


class GroupedOption(click.Option):
    """An option in a group of the help.

    Args:
        group: the group's title.
        **attributes: the arguments of `click.Option`.
    """

    def __init__(self, *args: Any, group: str, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help shows its options in groups, in the order of their first option."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each group, and "Other" for the options without one."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                title = parameter.group if isinstance(parameter, GroupedOption) else "Other"
                groups.setdefault(title, []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)
