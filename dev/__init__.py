"""What developers run: the pinned host, its client, footage. Not in the installed package."""
