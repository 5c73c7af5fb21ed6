"""The one kind of error that is the user's to mend: shown as one line, without a traceback."""


class UserError(Exception):
    """A setting, file or machine that cannot serve as asked; the message names it and the remedy, in one line."""
