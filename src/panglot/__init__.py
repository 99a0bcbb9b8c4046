"""panglot: text, images, sound and video as one stream of tokens, and back."""

__version__ = "0.1.0"
