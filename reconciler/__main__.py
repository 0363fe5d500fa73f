"""`python -m reconciler` is `banger`."""

from reconciler.cli.main import main

if __name__ == "__main__":
    main()
