"""The evaluation reference: frozen feature networks, floors and classical baselines of a dataset."""
