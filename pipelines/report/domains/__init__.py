"""The page's figures by kind of data."""
