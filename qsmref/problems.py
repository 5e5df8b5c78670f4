"""What can be wrong with input, as one sentence and an exit code.

Whoever meets bad data raises or returns a :class:`Problem`; the command line prints its sentence,
writes it into the participant-status table and turns the codes of all problems into one.
"""

from __future__ import annotations

import enum
import errno
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass


class ExitCode(enum.IntEnum):
    """Exit codes of the command line (those of sysexits.h where there is one)."""

    OK = 0  #: everything asked for is done
    SOME_FAILED = 1  #: some participants failed, the others are kept
    USAGE = 2  #: the command line is wrong
    INVALID_DATASET = 16  #: bids-validator found errors
    NO_MATCH = 18  #: the filters match nothing
    BAD_DATA = 65  #: data or sidecars are inconsistent
    MISSING_INPUT = 66  #: a needed input is not there
    INTERNAL = 70  #: an error in this program
    CANNOT_CREATE = 73  #: the output folder cannot be written
    IO_ERROR = 74  #: reading or writing failed while running
    TOOL_MISSING = 127  #: a program that was asked for is not installed
    INTERRUPTED = 130  #: the user stopped it


#: Characters of a sentence; a dataset could make it as long as it likes.
_LONGEST = 600


def printable(text: object) -> str:
    """Text as one line that can be shown anywhere: what a terminal would obey is spelled out.

    Names of files and values of sidecars end up in sentences, and may hold anything.

    >>> printable("a\\tb \\x1b[31m")
    'a b \\\\x1b[31m'
    """
    line = " ".join(str(text).split())
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    line = "".join(shown)
    return (
        line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    )


def shown(value: object) -> str:
    """A value that was found in a file, for a sentence.

    >>> shown("0.01"), shown([1] * 100)
    ("'0.01'", '[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 ...')
    """
    try:
        text = printable(repr(value))
    except ValueError:
        # Python prints no whole number of more than 4300 digits.
        text = "a number of thousands of digits"
    return text if len(text) <= 48 else text[:44] + " ..."


def io_sentence(cause: object) -> str:
    """What a failure to read or write is called, and for a full disk what to do.

    >>> io_sentence(OSError(5, "Input/output error"))
    'reading or writing failed: [Errno 5] Input/output error.'
    >>> io_sentence("OSError: [Errno 28] No space left on device")[:33]
    'the disk is full (OSError: [Errno'
    """
    words = str(cause).strip().rstrip(".")
    if any(os.strerror(code) in words for code in (errno.ENOSPC, errno.EDQUOT)):
        return (
            f"the disk is full ({words}); make room where the results and the work folder are, and "
            "give the same command again: it goes on where it stopped."
        )
    return f"reading or writing failed: {words}."


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, told in one sentence that names the file, the cause and the cure.

    Examples
    --------
    >>> str(Problem("01", "sub-01_MEGRE has no phase.", ExitCode.MISSING_INPUT))
    'sub-01: sub-01_MEGRE has no phase.'
    """

    #: Participant label without ``sub-``; empty when the problem belongs to no participant.
    subject: str
    #: The sentence.
    sentence: str
    #: The code the command ends with when nothing else could be done.
    code: ExitCode = ExitCode.BAD_DATA
    #: Step at which it was met: ``input`` or the name of a node.
    step: str = "input"
    #: Prefix of the run (``sub-01_acq-x``); empty when it is not about one run.
    prefix: str = ""

    def __post_init__(self):
        object.__setattr__(self, "sentence", printable(self.sentence))

    def __str__(self) -> str:
        return f"sub-{self.subject}: {self.sentence}" if self.subject else self.sentence

    def as_dict(self) -> dict:
        """Plain dictionary, fit for JSON."""
        return {**asdict(self), "code": int(self.code)}

    @classmethod
    def from_dict(cls, content: dict) -> Problem:
        """Inverse of :meth:`as_dict`."""
        return cls(**{**content, "code": ExitCode(content["code"])})


class DataError(ValueError):
    """Input that cannot be used; the message is the sentence for the user."""

    def __init__(self, sentence: str, code: ExitCode = ExitCode.BAD_DATA):
        super().__init__(printable(sentence))
        self.code = ExitCode(code)

    def __reduce__(self):
        # Exceptions are rebuilt from their arguments; the code must survive the way back from a
        # worker process.
        return type(self), (str(self), self.code)


def exit_code(finished: int, problems: Iterable[Problem]) -> ExitCode:
    """Code of a command of which `finished` participants came to the end.

    With problems beside finished participants it is 1; when nothing finished, the code that the
    problems share, and the most serious of them otherwise.

    >>> exit_code(2, []).name, exit_code(2, [Problem("01", "x")]).name
    ('OK', 'SOME_FAILED')
    """
    codes = {p.code for p in problems}
    if not codes:
        return ExitCode.OK if finished else ExitCode.NO_MATCH
    if finished:
        return ExitCode.SOME_FAILED
    serious = (
        ExitCode.INTERNAL,
        ExitCode.IO_ERROR,
        ExitCode.CANNOT_CREATE,
        ExitCode.BAD_DATA,
        ExitCode.MISSING_INPUT,
    )
    return next((code for code in serious if code in codes), max(codes))
