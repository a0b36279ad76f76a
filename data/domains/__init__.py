"""What preparing needs to know of each kind of data: statistics, manifest entry, preview, export."""
