"""Folders of clips, pictures and captions become a dataset."""
