"""`python -m mmsr` is the command `mmsr`."""

from mmsr.cli.main import main

if __name__ == "__main__":
    main()
