"""The one exception that is meant for people."""


class UserError(Exception):
    """Something that the user can put right: a recipe, a path, a command.

    The command line prints `message` and `hint` without a traceback and exits with `exit_code`.
    """

    def __init__(self, message: str, hint: str = "", *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message
