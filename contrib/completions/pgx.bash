# shellcheck shell=bash
# pgx.bash
#		Completion for bash of pgx_keystore, pgx_dmpall, pgx_rcvall, pgx_encrypt and pgx_walcopy.
#
# Operations and options come from each program's own --help, so there is no second list that could be
# out of date.  Source this file, or install it where bash-completion looks for files.

# What a program says of itself, asked once in a shell.
declare -gA _pgx_help
_pgx_ask()
{
	if [ -z "${_pgx_help[$1]:-}" ]; then
		_pgx_help[$1]=$("$1" --help 2>/dev/null) || return 1
	fi
}

# The operations: the words after the program's name in the synopsis.
_pgx_operations()
{
	sed -n '/^Usage:/,/^Options:/s/^  '"${1##*/}"' \([a-z][a-z-]*\).*/\1/p' <<<"${_pgx_help[$1]}"
}

_pgx_options()
{
	sed -n '/^Options:/,$s/^  \(-., \)\{0,1\} *\(--[a-z-]*=\{0,1\}\).*/\2/p' <<<"${_pgx_help[$1]}"
	# Of an operation that is an option, only the synopsis tells.
	grep -o '^  '"${1##*/}"' --[a-z-]*' <<<"${_pgx_help[$1]}" | sed 's/.* //'
}

# The words of a synopsis such as "slot list|add|change FILE": what may come second.
_pgx_second()
{
	sed -n 's/^  '"${1##*/}"' '"$2"' \([a-z-]*|[a-z|-]*\).*/\1/p' <<<"${_pgx_help[$1]}" | tr '|' '\n'
}

# The values of an option that takes one of a few, from its line in --help: "LIST: a (default), b or c".
_pgx_values()
{
	sed -n 's/^ .*'"$2"'=[A-Z]* .*: \([a-z0-9, ()]*\)$/\1/p' <<<"${_pgx_help[$1]}" |
		sed 's/([^)]*)//g; s/ or /,/' | tr -s ', ' '\n' | grep .
}

_pgx_complete()
{
	local program=$1 word=$2 before=$3 words="" i

	COMPREPLY=()
	_pgx_ask "$program" || return 0
	# bash takes the "=" of an option for a word.
	if [ "$word" = "=" ]; then
		word=""
	elif [ "$before" = "=" ]; then
		before=${COMP_WORDS[COMP_CWORD - 2]}
	fi
	case $before in
		-D|--pgdata|-B|--backup-directory|--wal-directory|--backup-destination)
			compopt -o dirnames 2>/dev/null
			return 0 ;;
		--*)
			words=$(_pgx_values "$program" "$before") ;;
	esac
	if [ -z "$words" ]; then
		case $word in
			-*)	words=$(_pgx_options "$program")
				[ -z "$words" ] || compopt -o nospace 2>/dev/null ;;
			*)	if [ "$COMP_CWORD" -eq 1 ]; then
					words=$(_pgx_operations "$program")
				elif [ "$COMP_CWORD" -eq 2 ]; then
					words=$(_pgx_second "$program" "${COMP_WORDS[1]}")
				fi ;;
		esac
	fi
	while IFS= read -r i; do
		[ -z "$i" ] || COMPREPLY+=("$i")
	done < <(compgen -W "$words" -- "$word" | sort -u)
}

complete -o default -F _pgx_complete pgx_keystore pgx_dmpall pgx_rcvall pgx_encrypt pgx_walcopy
