"""The subcommands of `d2a2`, one module per group: ``COMMANDS`` maps a subcommand to the functions (add_options, run).

``add_options(parser)`` adds its options; ``run(options)`` does what they say and returns the exit status, or None for 0.
What computes is imported inside these functions, so that `d2a2 COMMAND --help` is quick.
"""
