"""``caopd configs``: the configs that come with the package, by name."""
