"""The subcommands of `cosim`, one module each; every one is a thin wrapper over a study."""
