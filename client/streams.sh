# Part of pbclient.sh: streams between the server and a device; every member of a stream is waited for.
# shellcheck shell=sh disable=SC2154,SC2034  # the variables of pbclient.sh

fifos() {
	for fifo in "$@"; do rm -f "$WORK/$fifo"; mkfifo "$WORK/$fifo" || die "cannot make a fifo in $WORK"; done
}

join() { # TOOL PID ...: waits for every member of a stream; ERROR names each that failed, with its last words
	ERROR=''
	while [ $# -gt 0 ]; do
		wait "$2"
		join_status=$?
		case "$join_status" in
		0) ;;
		141) broken=yes ;; # it wrote to a member that had failed before
		*) ERROR="$ERROR$1 failed ($join_status: $(last_words "$1")); " ;;
		esac
		shift 2
	done
	: >"$WORK/pids"
	! cancelled || die cancelled
	[ -n "$ERROR" ] || [ -z "${broken:-}" ] || ERROR='a stream broke'
	broken=''
	[ -z "$ERROR" ]
}

last_words() { # TOOL: the last line that it wrote; partclone's only names its log, and the reason is there
	words=$(tr '\r' '\n' 2>/dev/null <"$WORK/$1.err" | grep -v '^ *$' | tail -n 1)
	case "$words" in
	*partclone.log*) logged=$(tr '\r' '\n' 2>/dev/null <"$WORK/partclone.log" | grep -v '^ *$' | tail -n 1) ;;
	*) logged='' ;;
	esac
	echo "${logged:-$words}" | cut -c 1-150
}

# ---------------------------------------------------------------- transports

# The one place that knows them. A transport NAME is a function transport_NAME ITEM STORED_BYTES [START]: it writes the item's
# stored bytes from START on to stdout, all of them or false, and says why in $WORK/download.err. What it writes is
# checked by who reads it. Small items (table, boot area, swap) always come by unicast.

choose_transport() { # sets TRANSPORT, that of the job; refuses one that is not known here, before anything else is done
	TRANSPORT=$(value TRANSPORT)
	case "${TRANSPORT:=unicast}" in # a server that does not say has no other
	unicast) ;;
	*) die "refused: the server sends this image by $TRANSPORT, which this client does not know: pbserv client build --force" ;;
	esac
}

transport() { # ITEM STORED_BYTES [START]
	case "$TRANSPORT" in unicast) transport_unicast "$@" ;; *) return 1 ;; esac
}

transport_unicast() { download "$@"; }

download() { # ITEM STORED_BYTES [START]: writes the item to stdout; a broken transfer goes on where it stopped
	at=${3:-0} tries=0
	while [ "$at" -lt "$2" ]; do
		cancelled && return 1
		# The group's stdout is the stream; curl's closing line goes to stderr.
		# It may be sent to another server (-L), which gets no header Authorization from curl: the URL opens the item there.
		curl -sSfL --max-redirs 3 --proto-redir =http,https -C "$at" --connect-timeout 10 --speed-limit 1 --speed-time 120 -H "@$WORK/auth" \
			-w '%{stderr}\nSTAT %{http_code} %{size_download}\n' "$URL/client/v1/jobs/$JOB/$ITEMS/$1" 2>"$WORK/curl.err" &
		echo $! >>"$WORK/pids"
		wait $!
		status=$?
		stat=$(sed -n 's/^STAT //p' "$WORK/curl.err")
		why=$(grep -v '^STAT\|^$' "$WORK/curl.err" | tail -n 1)
		got=0
		case "$stat" in 20[06]' '*) got=${stat#* } ;; esac
		at=$((at + got))
		[ "$at" -lt "$2" ] || break
		echo "item $1 stopped after $at of $2 bytes: ${why:-curl $status}" >"$WORK/download.err"
		case "$status/$stat" in 23/* | 33/* | 22/40[0-7]* | 22/41*) return 1 ;; esac
		tries=$((tries + 1)) pause=$RETRY_PAUSE
		[ "$got" = 0 ] || tries=1 pause=1
		[ "$tries" -lt "$PART_TRIES" ] || return 1
		echo "item $1: ${why:-connection ended} after $at of $2 bytes; going on from there" >>"$WORK/log"
		sleep "$pause"
	done
	[ "$at" = "$2" ] || { echo "item $1 has $at bytes, the manifest says $2" >"$WORK/download.err"; return 1; }
}

small_item() { # ITEM STORED_BYTES SHA256: downloads into $WORK/items and verifies
	download "$1" "$2" >"$WORK/items/$1" || die "item $1: $(tail -n 1 "$WORK/download.err")"
	[ "$(sha256sum <"$WORK/items/$1" | cut -d ' ' -f 1)" = "$3" ] || die "item $1: checksum mismatch"
}

stream_in() { # ITEM KIND STORED_BYTES SHA256 WRITER...: cache or server -> hash + unpacker -> writer
	item=$1 stored=$3 sum=$4 from=server
	unpacker "$1" "$2"
	shift 4
	[ -z "$CACHED" ] || [ ! -f "$CACHED/$item" ] || from=cache
	until stream_once "$@"; do
		# A copy that is as it should be is not what failed, and would fail again.
		[ "$from" = cache ] && ! same_item "$CACHED/$item" "$stored" "$sum" || die "${WRITTEN}item $item: $ERROR"
		say "item $item: the copy in the cache is damaged ($ERROR); taking it from the server"
		rm -f "$CACHED/$item"
		from=server
	done
	add_done "$stored"
}

fetch() {
	[ "$from" = server ] || exec cat "$CACHED/$item"
	transport "$item" "$stored"
}

stream_once() { # WRITER...
	fifos f1 f2 f3 f4
	rm -f "$WORK/download.err" "$WORK/sum"
	fetch >"$WORK/f1" 2>>"$WORK/download.err" &
	p1=$!
	tee "$WORK/f2" <"$WORK/f1" >"$WORK/f3" 2>"$WORK/tee.err" &
	p2=$!
	sha256sum <"$WORK/f2" >"$WORK/sum" 2>"$WORK/sha256sum.err" &
	p3=$!
	$UNPACK <"$WORK/f3" >"$WORK/f4" 2>"$WORK/unpacker.err" &
	p4=$!
	"$@" <"$WORK/f4" >/dev/null 2>"$WORK/writer.err" &
	p5=$!
	printf '%s\n' $p1 $p2 $p3 $p4 $p5 >>"$WORK/pids"
	echo "$p2 2 $from" >"$WORK/meter"
	join download $p1 writer $p5 unpacker $p4 tee $p2 sha256sum $p3 || return 1
	[ "$(cut -d ' ' -f 1 "$WORK/sum")" = "$sum" ] && return 0
	ERROR='checksum mismatch: the bytes are not those of the image'
	return 1
}

stream_out() { # ITEM READER...: reader -> count + zstd -> hash + server; sets STORED, SUM, PLAIN
	item=$1
	shift
	fifos f1 f2 f3 f4 f5 f6
	"$@" >"$WORK/f1" 2>"$WORK/source.err" </dev/null &
	p1=$!
	tee "$WORK/f2" <"$WORK/f1" >"$WORK/f3" 2>"$WORK/tee.err" &
	p2=$!
	wc -c <"$WORK/f2" >"$WORK/plain" &
	p3=$!
	zstd -T0 -3 -qc <"$WORK/f3" >"$WORK/f4" 2>"$WORK/zstd.err" &
	p4=$!
	tee "$WORK/f5" <"$WORK/f4" >"$WORK/f6" 2>"$WORK/tee.err" &
	p5=$!
	sha256sum <"$WORK/f5" >"$WORK/sum" 2>"$WORK/sha256sum.err" &
	p6=$!
	curl -sS -T - -K "$WORK/put.way" -H "@$WORK/auth" --connect-timeout 10 -o "$WORK/answer" -w '%{http_code}' \
		"$URL/client/v1/jobs/$JOB/items/$item" <"$WORK/f6" >"$WORK/code" 2>"$WORK/curl.err" &
	p7=$!
	printf '%s\n' $p1 $p2 $p3 $p4 $p5 $p6 $p7 >>"$WORK/pids"
	echo $p2 2 device >"$WORK/meter"
	join curl $p7 source $p1 zstd $p4 tee $p2 tee $p5 sha256sum $p6 wc $p3
	joined=$?
	case "$(cat "$WORK/code")" in
	2??) ;;
	000) [ -n "$ERROR" ] || ERROR='the server did not answer' ;;
	*) ERROR="server answered $(cat "$WORK/code"): $(head -n 1 "$WORK/answer"); $ERROR" joined=1 ;;
	esac
	[ "$joined" = 0 ] || return 1
	read -r STORED server_sum <"$WORK/answer"
	read -r SUM _ <"$WORK/sum"
	PLAIN=$(tr -d ' ' <"$WORK/plain")
	[ "$SUM" = "$server_sum" ] || { ERROR='checksum mismatch: the server did not get the bytes that were sent'; return 1; }
}
