"""The command line: one file a group of commands, loaded only when one of its commands is run."""
