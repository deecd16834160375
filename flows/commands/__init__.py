"""What single commands of `ropeway` do and print, one file a command or a kind of output; `flows.cli` parses their options."""
