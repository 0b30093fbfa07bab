"""``python -m bench``: user errors are one line on stderr and an exit code, never a traceback."""
from __future__ import annotations

import sys

from ltcore.errors import UserError


def main() -> None:
    from bench.cli import app

    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped; what is done is kept, run the same command again to go on", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


if __name__ == "__main__":
    main()
