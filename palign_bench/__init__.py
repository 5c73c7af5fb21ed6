"""palign-bench: does aligning a language model to one person work, and what does it cost?"""

__version__ = "0.1.0"
