"""Tools that developers and operators run beside the package."""
