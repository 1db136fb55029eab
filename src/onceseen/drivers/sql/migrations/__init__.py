"""Alembic's steps from one schema to the next: expand first, contract a release later, so that two releases run side by side."""
