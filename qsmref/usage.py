"""What a wrong command line gets: one sentence, as everything else that is wrong."""

from __future__ import annotations

import argparse
from typing import NoReturn

from .problems import ExitCode, printable

__all__ = ["Parser"]


class Parser(argparse.ArgumentParser):
    """Parser whose errors are one sentence with its exit status, as the last line of every run."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and stop with exit code 2.

        Parameters
        ----------
        message : str
            What is wrong, as argparse says it.
        """
        code = int(ExitCode.USAGE)
        said = printable(message).rstrip(".")
        self.exit(code, f"{self.prog}: {said}. See --help. Exit status {code}\n")
