"""What the name ``xp`` in a rule stands for, where it is not a module that exists anyway."""
