"""The way of an image, one file per arrow: submit, lease, settle, sweep, watch, control; and local paths.

Functions on a transaction; they never wait and know no clock but the `now` they are given. `group` runs what waits
together as one transaction, in the order that RECORD.md 1.2 fixes.
"""
