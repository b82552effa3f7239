import ast
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from plasm.cli import main
from plasm.config import parse_config, read_config
from plasm.files import listed, read_json, reason, shown
from plasm.training import TrainConfig
from plasm.weights import read_model_config


def test_what_is_shown_is_one_short_printable_line() -> None:
    assert shown("größe 日本") == "größe 日本"
    assert shown("a\x1b[31m\r\n\x00\u202e\ud800") == "a\\x1b[31m\\r\\n\\x00\\u202e\\ud800"
    assert shown("a\nb", kept="\n") == "a\nb"
    for text in ("x" * 10**6, "\x00" * 10**6, ["\x07"] * 10**5):
        assert len(shown(text)) <= 203
    assert listed(range(3)) == "0, 1, 2"
    assert listed(range(1000)).endswith("30, 31 and 968 more")
    said = "Error -3 while decompressing data: invalid literal/lengths set"
    assert reason(zlib.error(said)) == "something in it cannot be read"
    with pytest.raises(ValueError, match="malformed node") as error:
        ast.literal_eval("f(1)")
    assert reason(error.value) == "something in it cannot be read"


DEEP = {
    "list": "[" * 50_000 + "]" * 50_000,
    "object": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "beside": '{"architecture": "plasm_kth", "model_args": {"x": ' + "[" * 900 + "]" * 900 + "}}",
    "unclosed": "[" * 100_000,
    "digits": '{"architecture": "plasm_kth", "x": ' + "9" * 10_000 + "}",
    "bytes": b"\xff\xfe{}",
    "nul": "\x00" * 100,
}


@pytest.mark.parametrize("name", DEEP)
def test_json_that_nobody_wrote_by_hand(tmp_path: Path, name: str) -> None:
    content = DEEP[name]
    file = tmp_path / "config.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    for read in (read_json, read_model_config):
        with pytest.raises(ValueError, match=r"config\.json is damaged: ") as error:
            read(file)
        assert len(str(error.value)) < 300
        for words in ("recursion", "invalid literal", "codec", "Exceeds the limit"):
            assert words not in str(error.value)


def test_json_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    with file.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(ValueError, match=r"config\.json is damaged: it has 1,099,511,627,776 bytes"):
        read_json(file)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json is not there"):
        read_json(file)


@pytest.mark.parametrize(
    "content",
    ["a = " + "[" * 5000, "a = " + '{"b" = ' * 5000, "data_args.x = " + "[" * 100 + "]" * 100, "a = \x00", "é\x1b"],
)
def test_toml_that_nobody_wrote_by_hand(tmp_path: Path, content: str) -> None:
    file = tmp_path / "config.toml"
    for encoding in ("utf-8", "latin-1"):
        file.write_bytes(content.encode(encoding))
        with pytest.raises(ValueError, match=r"config\.toml ") as error:
            read_config(TrainConfig, file)
        assert "recursion" not in str(error.value)
        assert str(error.value).isprintable()
    with pytest.raises(ValueError, match=r"unknown options: \\x1b.*and 468 more") as error:
        parse_config(TrainConfig, "".join(f'"\\u001b{n}" = 1\n' for n in range(500)).encode())
    assert len(str(error.value)) < 5000


def test_a_command_prints_nothing_that_steers_the_terminal(tmp_path: Path) -> None:
    config: dict[str, Any] = {"architecture": "\x1b]0;title\x07" * 50_000, "model_args": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for source in (str(tmp_path), str(tmp_path / "no\x1b[2Jwhere")):
        result = CliRunner().invoke(main, ["predict", "--weights", source])
        assert result.exit_code == 1
        assert result.output.strip().isprintable()
        assert len(result.output) < 2000
