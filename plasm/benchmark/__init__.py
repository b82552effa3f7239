"""Models side by side: what they cost, measured, beside the errors that are known of them."""

from .command import run
from .literature import PUBLISHED, Published, measured_here, published
from .measuring import RUNTIMES, Measurement, measure
from .picture import picture
from .tables import markdown, read_csv, table, write_csv
from .timing import peak_memory

__all__ = [
    "PUBLISHED",
    "RUNTIMES",
    "Measurement",
    "Published",
    "markdown",
    "measure",
    "measured_here",
    "peak_memory",
    "picture",
    "published",
    "read_csv",
    "run",
    "table",
    "write_csv",
]
