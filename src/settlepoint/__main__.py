"""`python -m settlepoint` is `settle`."""

from settlepoint.cli import main

if __name__ == "__main__":
    main()
