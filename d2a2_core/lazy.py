"""Names of a package that are imported when they are first used."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns a ``__getattr__`` (PEP 562) for a package: PyTorch takes seconds to import, and not every name needs it.

    Args:
        package: Full name of the package.
        homes: Public name -> module below the package that defines it. Modules of the package are found, too.
    """

    def get(name: str) -> Any:
        if name not in homes:
            if not name.startswith("_") and importlib.util.find_spec(f"{package}.{name}"):
                return importlib.import_module(f"{package}.{name}")
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return get
