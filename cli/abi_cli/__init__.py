"""abi_cli: the abi command."""
