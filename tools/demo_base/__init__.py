"""How the demo base in `tasks/model/demo_base` was made: its corpus and its training. Run from the root of the repository."""
