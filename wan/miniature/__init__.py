"""A Wan 2.2 family small enough for a laptop: the real architecture, shrunk."""
