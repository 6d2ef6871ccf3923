"""`python -m homeostat_retrainer`."""

from homeostat_retrainer.main import main

main()
