"""``optimum-cli export intaglio``: optimum reads every file of its namespace package ``optimum.commands.register``.

The wheel puts this file there. The folder has no ``__init__.py``: optimum and its other plug-ins share the namespace.
"""

import argparse

from intaglio.interop.optimum_cli import HELP, NAME, add_arguments, run
from optimum.commands.base import BaseOptimumCLICommand, CommandInfo  # pyright: ignore[reportMissingImports]
from optimum.commands.export.base import ExportCommand  # pyright: ignore[reportMissingImports]


class IntaglioExportCommand(BaseOptimumCLICommand):
    """``intaglio export`` and ``intaglio quantize`` as a format of ``optimum-cli export``."""

    COMMAND = CommandInfo(name=NAME, help=HELP)

    @staticmethod
    def parse_args(parser: argparse.ArgumentParser) -> None:
        add_arguments(parser)

    def run(self) -> None:
        assert self.args is not None  # optimum runs a command that was parsed
        run(self.args)


REGISTER_COMMANDS = [(IntaglioExportCommand, ExportCommand)]
