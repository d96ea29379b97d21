"""abi: the library a program imports."""
