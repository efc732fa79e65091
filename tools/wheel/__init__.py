"""`./dev wheel`: build the wheel from the sdist; try it where there is no compiler and no header."""
