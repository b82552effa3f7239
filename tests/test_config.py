from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from plasm.config import Config, option, read_config


@dataclass(frozen=True, kw_only=True)
class Options(Config):
    command = "cook"

    dish: str = option(MISSING, "What.")
    hours: float = option(1.0, "How long.", at_least=0)
    sizes: tuple[int, int] | None = option(None, "Of the pots.", at_least=1)
    heat: Literal["low", "high"] = option("low", "How hot.")
    extra: dict[str, Any] = field(default_factory=dict)


def test_a_saved_record_is_read_back_whole(tmp_path: Path) -> None:
    config = Options(dish="soup", hours=1 / 3, extra={"salt": True, "spoons": [1, 2], "of": {"what": "tin"}})
    config.save(tmp_path / "config.toml")
    assert Options(**read_config(Options, tmp_path / "config.toml")) == config
    assert list(tmp_path.iterdir()) == [tmp_path / "config.toml"]


def test_what_is_missing_is_named_as_an_option() -> None:
    assert Options.create({"dish": "soup", "hours": 2}) == Options(dish="soup", hours=2)
    with pytest.raises(ValueError, match=r"^missing: --dish, or else$"):
        Options.create({"hours": 2}, ", or else")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hours": "two"}, "hours is float, got 'two'"),
        ({"hours": True}, "hours is float, got True"),
        ({"hours": -1}, "hours is at least 0, got -1"),
        ({"hours": float("nan")}, "hours is a number, got nan"),
        ({"sizes": (3, 0)}, "sizes is at least 1, got 0"),
        ({"heat": "hot"}, "heat is one of low, high, got 'hot'"),
        ({"extra": [1]}, "extra is dict"),
        ({"extra": {"salt": None}}, "extra holds what a configuration file cannot"),
    ],
)
def test_values_of_the_wrong_type_or_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(dish="soup", **values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nonsense", r"options\.toml is not TOML"),
        (b"dish = '\xff'", r"options\.toml is not TOML"),
        (b"dihs = 3", r"options\.toml has unknown options: dihs; there are: dish, extra, "),
        (b"command = 'bake'", r"options\.toml is for `plasm bake`, this is `plasm cook`"),
    ],
)
def test_files_that_do_not_hold_the_record(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "options.toml").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_config(Options, tmp_path / "options.toml")
