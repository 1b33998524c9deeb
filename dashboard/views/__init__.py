"""Pages, one file each; `dashboard.registry` finds them."""
