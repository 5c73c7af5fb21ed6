"""The one kind of error that is the user's to mend: shown as one line, without a traceback."""


class UserError(Exception):
    """A setting, file or machine that cannot serve as asked; the message names it and the remedy, in one line.

    What it quotes from a user's file cannot break the line or command the terminal: control characters are escaped.
    """

    def __str__(self) -> str:
        text = super().__str__()
        return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
