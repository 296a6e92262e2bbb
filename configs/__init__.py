"""The recipes: one file each, all of them changes to default.py."""
