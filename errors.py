"""The one error a user can cause: a single line that says what, where, and what would be right."""


class InputError(ValueError):
    """Bad input, told in one line that names the file, the field and the value, and what would be right.

    The command line prints the message on one line of standard error and exits with status 2.
    """
