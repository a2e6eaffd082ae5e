"""The errors that a caller may want to tell apart."""


class ChangeMapError(Exception):
    """Base of every error that this library raises on purpose."""


class InputError(ChangeMapError, ValueError):
    """A file or an argument cannot be used (command line: exit code 2).

    The message is one line and says which file or argument, what was found, what was
    expected and what to do.
    """


class Cancelled(ChangeMapError):
    """The user, or a signal, asked the run to stop. Nothing half-written is left."""


def printable(text: str) -> str:
    """``text`` on one line, without what a terminal cannot show: names and damaged headers are quoted in messages."""
    return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)
