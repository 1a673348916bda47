"""The subcommands of `d2a2`: options, calls, printing; each module adds its own by ``add_to``."""
