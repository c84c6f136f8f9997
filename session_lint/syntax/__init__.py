"""From source text to IR. The only package that knows LibCST."""
