"""``caopd route``: what a cascade of a small and a large model costs and how often it is right."""
