"""Pure rules and values: no clock but the one that makes ids, no I/O, no third-party package."""
