"""Errors that the user can fix: the command line prints them as one line and exits with status 1."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """An error in the input or the environment: says what is wrong, what was received, and what to do."""


def suggest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` if a known word is close, else an empty string."""
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""
