"""``python -m plasm`` is the ``plasm`` command."""

from plasm.cli import main

if __name__ == "__main__":
    main(prog_name="plasm")
