"""``python -m bench``: user errors are one line on stderr and an exit code, never a traceback."""
from __future__ import annotations

import sys

from ltcore.errors import UsageError, UserError

INTERRUPTED = 130  # what shells give for Ctrl-C


def main() -> None:
    from bench.cli import app

    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="python -m bench", standalone_mode=False)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        code = _misused(error)
    if code == INTERRUPTED:
        print("stopped; what is done is kept, run the same command again to go on", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def _misused(error: Exception) -> int:
    """What typer has against a call, as one line. Its exceptions are told by their form: their home differs from version to version."""
    if not hasattr(error, "format_message"):
        raise error
    context = getattr(error, "ctx", None)
    advice = f"; see '{context.command_path} --help'" if context else ""
    print(f"error: {' '.join(error.format_message().split()).rstrip('.')}{advice}", file=sys.stderr)
    return UsageError.exit_code


if __name__ == "__main__":
    main()
