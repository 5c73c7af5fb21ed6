"""What is typed: arguments, subcommands and one-line errors."""
