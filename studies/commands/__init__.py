"""``prunetune studies`` and ``prunetune dashboard``: seeing, publishing and removing studies."""
