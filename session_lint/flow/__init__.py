"""The interpreter: a function's IR becomes the states of its sessions at every exit."""
