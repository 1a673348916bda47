"""Errors whose cause a program may rely on, whatever the message says."""

from __future__ import annotations


class CodedError(ValueError):
    """A ValueError with a stable ``code`` for diagnostics and tests; its wording may change."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def error_code(error: BaseException) -> str:
    """The code of an error: its own, or the name of its type where it has none."""
    return getattr(error, "code", type(error).__name__)
