"""The command line: the only part that knows of options, folders of results and reports."""
