"""Print the oldest supported version of every dependency, as pip's constraints.

Usage: python tools/oldest.py > constraints.txt
"""

import configparser
import re
from pathlib import Path

SETUP = Path(__file__).parents[1] / "setup.cfg"


def oldest(setup: Path = SETUP) -> list[str]:
    """The lower bounds of setup.cfg as exact versions: "torch>=2.6" becomes "torch==2.6".

    The tools of development (ruff, mypy, mkdocs, ...) are not among them: only what a user or a test imports.

    Raises:
        ValueError: If two extras ask for different lower bounds of one package.
    """
    config = configparser.ConfigParser()
    config.read(setup, encoding="utf-8")
    extras = config["options.extras_require"]
    lines = config["options"]["install_requires"] + "".join(
        extras[name] for name in extras if name not in ("dev", "docs")
    )
    bounds: dict[str, str] = {}
    for name, version in re.findall(r"^([\w-]+)>=([\w.]+)", lines, re.MULTILINE):
        if bounds.setdefault(name, version) != version:
            raise ValueError(f"setup.cfg asks for {name}>={bounds[name]} and for {name}>={version}")
    return [f"{name}=={version}" for name, version in sorted(bounds.items())]


if __name__ == "__main__":
    print("\n".join(oldest()))
