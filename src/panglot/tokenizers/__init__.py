"""One tokenizer a modality; each encodes and decodes."""
