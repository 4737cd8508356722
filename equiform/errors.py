"""Errors that are the user's to mend: the command line prints them as one line and exits with status 1."""


class UserError(Exception):
    """Something outside the program is wrong: says what, what was received, and what to do."""
