"""One file a command: `SUMMARY`, `add_arguments(parser)` if it has options, `run(arguments) -> exit code`.

`abi_cli.main` imports only the one that was asked for.
"""
