"""`./dev wheel`: build the wheel from the sdist, and try it where there is neither a compiler nor a header."""
