"""Objects, through fsspec: listed, read by range, and published whole."""
