"""`python -m onceseen` is `onceseen`."""

from onceseen.cli.main import main

if __name__ == "__main__":
    main()
