"""The subcommands of `falx`, one file a group; each parses its options and calls."""
