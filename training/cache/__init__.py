"""What clips and captions were encoded to, on disk."""
