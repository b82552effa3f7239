"""The page that forecasts in a browser, and a server for it."""

from .models import SITE, PageModel, packaged_models, write_list
from .server import DemoServer, check_free, copy_site, site_files

__all__ = [
    "SITE",
    "DemoServer",
    "PageModel",
    "check_free",
    "copy_site",
    "packaged_models",
    "site_files",
    "write_list",
]
