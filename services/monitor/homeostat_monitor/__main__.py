"""python -m homeostat_monitor"""

from homeostat_monitor.main import main

main()
