"""Atomic writes, untrusted text and JSON, modules that users name, optional packages without the folder's settings."""

from .atomic import atomic_write, check_writable
from .extras import require
from .settings import import_without_settings
from .untrusted import check_depth, is_count, is_number, listed, parse_json, read_json, reason, shown
from .user_modules import UserModules, import_named

__all__ = [
    "UserModules",
    "atomic_write",
    "check_depth",
    "check_writable",
    "import_named",
    "import_without_settings",
    "is_count",
    "is_number",
    "listed",
    "parse_json",
    "read_json",
    "reason",
    "require",
    "shown",
]
