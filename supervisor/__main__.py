"""`python -m rqsup.supervisor` is `rqsup`."""

from rqsup.supervisor.cli import main

if __name__ == "__main__":
    main()
