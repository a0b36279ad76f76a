"""Bytes from elsewhere, distrusted: downloads, archives, compressed streams."""
