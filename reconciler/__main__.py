"""`python -m reconciler` is `banger`."""

from reconciler.cli.warm import main

if __name__ == "__main__":
    main()
