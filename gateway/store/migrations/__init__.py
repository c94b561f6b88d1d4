"""Alembic's scripts. Run through `migrate`: there is no alembic.ini."""
