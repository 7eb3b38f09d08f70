"""How this project's processes end: known errors in one line, children with their parent."""
