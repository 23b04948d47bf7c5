"""`python -m fallback_plugin` is `fallback-plugin`."""

from fallback_plugin.cli import main

if __name__ == "__main__":
    main()
