"""What crosses a socket: every message (schema), its bytes (codec) and its envelope (frames)."""
