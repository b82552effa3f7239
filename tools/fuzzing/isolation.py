"""What a process of a fuzzer may not have, as far as the kernel can see to it: the network, and all of the memory."""

import contextlib
import ctypes
import os
import sys
from pathlib import Path

__all__ = ["limit_memory", "without_network"]

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000


def without_network() -> bool:
    """Give this process a network of its own, which leads nowhere; whether the kernel let it.

    To be called before there are threads, as numpy and torch start them.
    """
    if not sys.platform.startswith("linux"):
        return False
    unshare = getattr(ctypes.CDLL(None, use_errno=True), "unshare", None)
    # Whoever may not is someone else in a namespace of its own; there he may.
    return unshare is not None and any(unshare(flags) == 0 for flags in (_NEW_NET, _NEW_USER | _NEW_NET))


def limit_memory(more: int) -> None:
    """Let this process have so many bytes of address space more than now."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + more
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
