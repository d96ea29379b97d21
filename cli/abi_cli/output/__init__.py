"""How answers look: `text` for people, `json` for programs."""
