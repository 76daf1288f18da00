"""What is wrong with a dataset's clips, found in one pass over them."""
