"""How a node of PostgreSQL starts: what it is to be, it asks its peers each time, so that there is one primary whatever happened.

A node that was primary may have been overtaken while it was away.  It starts as one again only when every peer says that it is
a standby of no newer timeline (each promotion begins one).  Otherwise it rewinds its data to the new primary's, or copies
them where that can't be done, and follows.

Whoever promotes another node first writes its name beside this one's data (`succeeded_by`).  Once that is there, this node is not
primary again before it has followed that one: who hears nobody can't know how far the promotion came, so it waits, and where
the promotion was never asked for, asks for it itself.  Only without such a word it starts after a while in which no peer answers:
it can't acknowledge a write without a standby, and a guard beside the server ends it as soon as a primary of a newer timeline is
heard of, or when it is to be succeeded and whoever wrote so has not ended it.
"""

from __future__ import annotations

from typing import Final

PORT: Final = 5432
ALONE_S: Final = 10  # how long a former primary that nobody was to succeed waits for peers that don't answer
FENCED_S: Final = 10  # how long a primary that is to be succeeded lives, at least, where nobody kills it
PATIENCE_S: Final = 60  # how long a start waits for what only another node can do, before it ends and is made again

PATHS: Final = 'PATH="$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1)"'
START: Final = rf"""set -u
{PATHS}; export PATH PGCONNECT_TIMEOUT=2
main=$(exec sh -c 'echo "$PPID"')  # its own number: Kubernetes makes one dollar of two
begun=$(date +%s)

say() {{ echo "envctl: $*"; }}

on() {{ timeout 5 psql -h "$1" -p {PORT} -U postgres -d postgres -XAtq -F ' ' -c "$2"; }}

timeline() {{ ls "$PGDATA/pg_wal" | grep -E '^[0-9A-F]{{8}}' | cut -c 1-8 | sort | tail -n 1; }}

# heard: how many peers answer; newest: the newest timeline that one of them knows; primary: who is, of all, that of the newest, `line`
look() {{
  heard=0 newest=0 primary= line=0
  for peer in $ENVCTL_PEERS; do
    set -- $(on "$peer" "select pg_is_in_recovery(), max(left(name, 8)) from pg_ls_waldir() where name ~ '^[0-9A-F]{{8}}'" 2>/dev/null)
    [ $# = 2 ] || continue
    heard=$((heard + 1))
    if [ "$2" \> "$newest" ]; then newest=$2; fi
    if [ "$1" = f ] && [ "$2" \> "$line" ]; then primary=$peer line=$2; fi
  done
}}

waited() {{ [ $(($(date +%s) - begun)) -ge "$1" ]; }}

# what it waits for, and what to do
patient() {{
  if waited "${{ENVCTL_PATIENCE_S:-{PATIENCE_S}}}"; then
    say "this node ends, and waits again when it is started again: it waits for $1; $2"
    exit 1
  fi
  sleep 0.2
}}

overtaken() {{ [ "$primary" ] && [ "$line" \> "$(timeline)" ]; }}

# The mark stays until the data are whole: whoever is killed on the way begins with a copy.  They are not synced twice: a server
# whose data were not shut down in good order syncs them all before it starts.
copy() {{
  : > "$PGDATA.rejoining"
  until look; [ "$primary" ] && rm -rf "$PGDATA.new" &&
      pg_basebackup -h "$primary" -p {PORT} -U postgres --checkpoint=fast --no-sync -D "$PGDATA.new"; do
    patient "a primary to copy data from" "let one of $ENVCTL_PEERS run as such, where it can be reached"
  done
  : > "$PGDATA.new/standby.signal"
  rm -rf "$PGDATA" && mv "$PGDATA.new" "$PGDATA" && rm "$PGDATA.rejoining"
}}

rejoin() {{
  say "$primary has been promoted: this node follows it"
  : > "$PGDATA.rejoining"
  on "$primary" checkpoint  # so that its control file names the new timeline
  rm -f "$PGDATA/postmaster.pid"  # of the life before: there is no server in this node now, whatever has that number
  if pg_rewind --no-sync -D "$PGDATA" --source-server="host=$primary port={PORT} user=postgres dbname=postgres"; then
    : > "$PGDATA/standby.signal"
    rm "$PGDATA.rejoining"
  else
    copy
  fi
}}

first() {{
  rm -rf "$PGDATA.new"
  initdb --username=postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8 --data-checksums -D "$PGDATA.new" || exit
  printf '%s' "$ENVCTL_HBA" > "$PGDATA.new/pg_hba.conf"
  mv "$PGDATA.new" "$PGDATA"
}}

again() {{
  set -- $ENVCTL_PEERS
  peers=$# successor=$(cat "$PGDATA.successor" 2>/dev/null)
  while look; do
    if overtaken; then rejoin; return; fi
    if [ "$successor" ]; then
      on "$successor" "select pg_promote(true, 4)" >/dev/null 2>&1  # refused where it has been
      patient "$successor, which takes its place, to answer as primary" "let it run where it can be reached (if its data are lost, remove $PGDATA.successor)"
    elif [ "$newest" \> "$(timeline)" ]; then  # without its primary: that one is on its way back
      patient "the primary of timeline $newest" "let the one of $ENVCTL_PEERS run that was promoted last, where it can be reached"
    else
      if [ "$heard" = "$peers" ] || waited {ALONE_S}; then return; fi
      sleep 0.1
    fi
  done
}}

guard() {{
  fenced=0
  while sleep 1 && kill -0 "$main" 2>/dev/null; do
    if [ -e "$PGDATA/standby.signal" ]; then continue; fi
    if [ -e "$PGDATA.successor" ]; then fenced=$((fenced + 1)); fi
    look
    if overtaken || [ "$fenced" -ge {FENCED_S} ]; then
      say "${{primary:-$(cat "$PGDATA.successor")}} takes its place: this node ends, and follows it when it is started again"
      kill -QUIT "$main"
      return
    fi
  done
}}

if [ -e "$PGDATA.rejoining" ]; then copy
elif [ ! -e "$PGDATA" ]; then if [ "$ENVCTL_STANDBY" ]; then copy; else first; fi
elif [ ! -e "$PGDATA.begun" ]; then if [ "$ENVCTL_STANDBY" ]; then : > "$PGDATA/standby.signal"; fi
elif [ ! -e "$PGDATA/standby.signal" ]; then again
fi
: > "$PGDATA.begun"
if [ -e "$PGDATA/standby.signal" ]; then rm -f "$PGDATA.successor"; fi  # it has been succeeded, and follows
if [ "$ENVCTL_PEERS" ]; then (guard &); fi
exec postgres -D "$PGDATA" "$@"
"""  # noqa: S608 - the query is the program's own
"""A shell program; its arguments are the server's.

`PGDATA` is where the data are: prepared, or made by the first start (`ENVCTL_HBA`).  `ENVCTL_PEERS` names the other
nodes; `ENVCTL_STANDBY` is set where the first start is a standby's.  `ENVCTL_PATIENCE_S` takes the place of `PATIENCE_S`.
"""

SUCCEEDED: Final = ("sh", "-c", 'test -e "$PGDATA.successor"')
"""The command that tells whether somebody is to succeed the node in which it runs: status 0."""


def succeeded_by(name: str) -> tuple[str, ...]:
    """The command that has the node in which it runs not be primary any more once it ends, before it has followed the one of that name.

    Status 0 when that is on its disk.
    """
    keep = 'f=$PGDATA.successor; printf "%s\\n" "$1" > "$f.new" && sync "$f.new" && mv "$f.new" "$f"'
    return ("sh", "-c", keep, "sh", name)


def asked(query: str, host: str = "/tmp") -> tuple[str, ...]:  # noqa: S108 - the node's own
    """The command that asks the server of the node in which it runs, or of another host, as superuser: unaligned rows, status 0."""
    psql = f'{PATHS}; export PATH PGCONNECT_TIMEOUT=2; exec psql -h "$2" -p {PORT} -U postgres -d postgres -XAtqc "$1"'
    return ("timeout", "20", "sh", "-c", psql, "sh", query, host)
