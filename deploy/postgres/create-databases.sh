#!/bin/bash
# Runs once, when the server's volume is new: a database and a role per service, and nothing in common.
set -euo pipefail

create() {
  local name="$1" password="$2"
  psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    -v name="$name" -v password="$password" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
}

create registry "$REGISTRY_PASSWORD"
create ledger "$LEDGER_PASSWORD"
create monitor "$MONITOR_PASSWORD"
create retrainer "$RETRAINER_PASSWORD"
