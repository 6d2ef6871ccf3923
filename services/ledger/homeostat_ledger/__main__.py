"""`python -m homeostat_ledger`."""

from homeostat_ledger.main import main

main()
