"""``python -m idbellen`` and the ``idbellen`` command."""

from idbellen.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
