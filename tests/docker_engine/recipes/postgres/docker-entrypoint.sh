#!/bin/bash
# Initialises an empty data directory as the POSTGRES_* variables say, runs what lies in /docker-entrypoint-initdb.d, then the server.
set -euo pipefail

from_file() {  # NAME_FILE names a file that holds NAME
    local file="${1}_FILE"
    if [ -n "${!file:-}" ]; then export "$1=$(< "${!file}")"; fi
}

run_scripts() {
    local file sql=(psql -v ON_ERROR_STOP=1 --no-psqlrc -U "$POSTGRES_USER" -d "$POSTGRES_DB")
    for file in /docker-entrypoint-initdb.d/*; do
        echo "$0: $file"
        case "$file" in
            *.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
            *.sql) "${sql[@]}" -f "$file" ;;
            *.sql.gz) gunzip -c "$file" | "${sql[@]}" ;;
        esac
    done
}

initialise() {
    if [ -z "${POSTGRES_PASSWORD:-}" ] && [ "${POSTGRES_HOST_AUTH_METHOD:-}" != trust ]; then
        echo "Error: Database is uninitialized and superuser password is not specified: set POSTGRES_PASSWORD" >&2
        exit 1
    fi
    # shellcheck disable=SC2086  # several arguments
    initdb -U "$POSTGRES_USER" --pwfile=<(echo "${POSTGRES_PASSWORD:-}") ${POSTGRES_INITDB_ARGS:-}
    echo "host all all all ${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >> "$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -w -o "-c listen_addresses=''" start
    if [ "$POSTGRES_DB" != postgres ]; then
        psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d postgres -c "CREATE DATABASE \"$POSTGRES_DB\""
    fi
    shopt -s nullglob
    run_scripts
    pg_ctl -D "$PGDATA" -m fast -w stop
    echo "PostgreSQL init process complete; ready for start up."
}

if [ "${1:0:1}" = - ]; then set -- postgres "$@"; fi
if [ "$1" = postgres ]; then
    if [ "$(id -u)" = 0 ]; then
        mkdir -p "$PGDATA"
        chmod 700 "$PGDATA"
        chown -R postgres "$PGDATA" /var/run/postgresql
        exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
    fi
    from_file POSTGRES_PASSWORD; from_file POSTGRES_USER; from_file POSTGRES_DB; from_file POSTGRES_INITDB_ARGS
    export POSTGRES_USER="${POSTGRES_USER:-postgres}"
    export POSTGRES_DB="${POSTGRES_DB:-$POSTGRES_USER}"
    export PGUSER="$POSTGRES_USER" PGDATABASE="$POSTGRES_DB" PGPASSWORD="${POSTGRES_PASSWORD:-}"
    if [ ! -s "$PGDATA/PG_VERSION" ]; then initialise; else echo "PostgreSQL Database directory appears to contain a database; Skipping initialization"; fi
    unset PGUSER PGDATABASE PGPASSWORD
fi
exec "$@"
