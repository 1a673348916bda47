"""Errors whose cause a program may rely on, whatever the message says."""

from __future__ import annotations


class CodedError(ValueError):
    """A ValueError with a stable code for diagnostics and tests; its wording may change.

    Attributes:
        code: Names the cause, for instance "color_encoding".
        detail: Tells causes of the same code apart, for instance the encoding; for whoever reports each cause once.
    """

    def __init__(self, code: str, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.code, self.detail = code, detail


def error_cause(error: BaseException) -> tuple[str, str]:
    """Returns code and detail of an error; where it has none, the name of its type and the start of its message."""
    if isinstance(error, CodedError):
        return error.code, error.detail
    return type(error).__name__, str(error)[:40]
