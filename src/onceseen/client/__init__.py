"""Talks to a server over HTTP; a light import without numpy."""
