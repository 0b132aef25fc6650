"""CRC-32C, from the ``crc32c`` package's extension module.

The package's own ``__init__`` imports argparse and importlib.metadata for its command line, which
takes 30 ms: as much as all of minilog may. So the extension is loaded without it where that can
be done; it is the same module that ``import crc32c`` then finds. This module refuses to know what
is checked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from typing import cast

Checksum = Callable[..., int]


def _extension() -> Checksum | None:
    package = PathFinder.find_spec("crc32c")
    if package is None or package.submodule_search_locations is None:
        return None
    name = "crc32c._crc32c"
    spec = PathFinder.find_spec(name, package.submodule_search_locations)
    if spec is None or spec.loader is None:
        return None
    module = spec.loader.create_module(spec)
    if module is None:
        return None
    spec.loader.exec_module(module)
    sys.modules[name] = module
    return cast("Checksum | None", getattr(module, "crc32c", None))


def _packaged() -> Checksum:
    from crc32c import crc32c

    return crc32c


crc32c: Checksum = _packaged() if "crc32c" in sys.modules else _extension() or _packaged()
