"""``python -m homeostat_registry``."""

from homeostat_registry.main import main

if __name__ == "__main__":
    main()
