"""What the longer sub-commands of `claims` do; their words and options stand in `running.command_line`."""
