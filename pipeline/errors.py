"""The one exception that is meant for people, the one that becomes a reject, and exit codes."""

FAILED, WRONG, STOPPED = 1, 2, 3
"""Exit codes: the work failed, the command or recipe is wrong, a signal stopped it."""


class UserError(Exception):
    """Something that the user can put right: a recipe, a path, a command.

    The command line prints `message` and `hint` without a traceback and exits with `exit_code`.
    """

    def __init__(self, message: str, hint: str = "", *, exit_code: int = WRONG) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class LeaseLostError(UserError):
    """Another run has taken the corpus while this one held it; the signal that it sent says so."""


class StarvedError(UserError):
    """A model cannot be fitted, since the corpus holds nothing that it could be fitted on."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, exit_code=FAILED)


class RejectError(ValueError):
    """A record, or a text of one, that will not be used; `reason` is a stable reject code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
