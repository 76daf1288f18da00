"""The proof that Tandem teaches: small LoRAs of the toy world, made and judged in the real host over HTTP."""
