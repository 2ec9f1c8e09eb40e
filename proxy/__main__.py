"""``python -m proxy``: the same command line as ``readygate``."""

from proxy.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
