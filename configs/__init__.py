"""The recipes, one file each; all of them are changes to default.py."""
