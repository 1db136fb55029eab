"""The HTTP side of a server: `app` puts it together, one file per resource."""
