"""Registered versions: packaging, which of them holds an alias, and lineage back to raw data."""
