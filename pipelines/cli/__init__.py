"""The command line: a table of commands, and a file for each; what they do is elsewhere, or in `data.py`."""
