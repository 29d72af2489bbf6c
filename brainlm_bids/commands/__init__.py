"""The command-line programs and their options."""
