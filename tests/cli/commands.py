"""The ``plasm`` command, called in this process."""

from click.testing import CliRunner, Result

from plasm.cli import main


def plasm(*arguments: object) -> Result:
    """Run a command, whatever comes of it."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def ok(*arguments: object) -> str:
    """Run a command that succeeds; what it printed."""
    result = plasm(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def fails(*arguments: object) -> str:
    """Run a command that fails with one clear line; what it printed."""
    result = plasm(*arguments)
    assert result.exit_code == 1, result.output
    assert result.output.startswith("Error: ")
    assert "Traceback" not in result.output
    return result.output
