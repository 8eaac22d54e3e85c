"""The scheduling core: pure, standard library only, told the time."""
