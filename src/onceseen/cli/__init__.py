"""The command line, one file per verb. Results go to stdout, progress and logs to stderr."""
