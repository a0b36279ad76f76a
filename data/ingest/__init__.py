"""From a source and its card to a prepared dataset."""
