"""The verbs of the command line that are no stages."""
