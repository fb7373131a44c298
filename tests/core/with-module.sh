#!/bin/bash
# pg_ctl of the tree where every cluster is encrypted.  Some tests set shared_preload_libraries themselves, which takes
# the place of what initdb --encrypt has set; as an administrator would, put the module before what
# they want.  Installed by tests/core/run.

datadir=${PGDATA:-}
before=""
for argument; do
	case $before in -D|--pgdata) datadir=$argument ;; esac
	case $argument in --pgdata=*) datadir=${argument#*=} ;; esac
	before=$argument
done
conf=$datadir/postgresql.conf
if [ -f "$datadir/pgx_tde/keys" ] && [ -f "$conf" ]; then
	# The last one counts.
	line=$(grep '^shared_preload_libraries' "$conf" | tail -n 1)
	case $line in
		*pgx_tde*|"") ;;
		*) sed "s/^[^']*'/shared_preload_libraries = 'pgx_tde, /; s/, '/'/" <<<"$line" >>"$conf" ;;
	esac
fi
# Under its own path: by that it finds postgres and initdb, and names itself in messages.
exec -a "$0" "$0.real" "$@"
