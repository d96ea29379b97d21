"""This host among others: who they are, how they reach each other, what they agree on."""
