"""Front ends that live inside other tools."""
