"""`python -m coverslip` is the command `coverslip`."""

from coverslip.cli.main import main

if __name__ == "__main__":
    main()
