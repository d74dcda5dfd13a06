#!/bin/sh
# pbclient.sh: asks a pbserv server for this machine's work and does it: restores an image to the disk, captures it,
# runs a script, or gives a person a shell.
#
#   pbclient.sh --url URL --token T --mac MAC [--disk DEVICE]... [--no-reboot]
#
# What is not given is read from the kernel command line (pb.url= pb.token= pb.mac=). --disk limits the choice to the
# disks given; a single one counts as named by the operator. Plain POSIX sh; protocol and rules: client/README.md.
# Its parts lie beside it (the list is below); img, which does by hand what this does for the server, calls it.
# Exit: 0 done or nothing to do, 1 the job failed (its result was posted), 2 wrong call, 3 the server gave no answer.
# shellcheck disable=SC2034  # what is set here is used in the parts
set -u
LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH

HERE=$(dirname "$(readlink -f "$0")")
URL='' TOKEN='' MAC='' ONLY_DISKS=${PB_DISKS:-} REBOOT=yes
ORDER='' ORDER_IMAGE='' ORDER_DISK='' ORDER_OVERWRITE=0
JOB='' ACTION='' TARGET_DISK='' FINISH=none
DISK='' NODE='' SECTOR='' ERROR='' WORK='' LOOP_PID='' WAIT_PID='' STARTED=$(date +%s)
PROTOCOL=1 VERIFIED='' WAITED_MS=0 CACHED='' ESP='' ITEMS=items FACTS=facts WRITTEN=''
BOOT_CAP=1048576
PART_TRIES=42 RETRY_PAUSE=${PB_RETRY_PAUSE:-3} # together the two minutes for which a server may be away at least; a try takes time, too
QUOTE_MARK=$(printf '\001')
# The one list of the parts; whatever copies the client takes all *.sh of this folder, and img.
for part in talk disks streams layout cache restore foreign after system capture inventory tasks; do
	# shellcheck source=/dev/null
	. "$HERE/$part.sh"
done

# ---------------------------------------------------------------- the course of things

argument() { # NAME: its value on the kernel command line
	tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p" | tail -n 1
}

usage() { sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2; }

read_options() {
	while [ $# -gt 0 ]; do
		case "$1" in
		--no-reboot) REBOOT=''; shift; continue ;;
		--overwrite) ORDER_OVERWRITE=1; shift; continue ;;
		--url | --token | --mac | --disk | --order | --image | --target) [ $# -ge 2 ] || usage ;;
		*) usage ;;
		esac
		case "$1" in
		--url) URL=$2 ;;
		--token) TOKEN=$2 ;;
		--mac) MAC=$2 ;;
		--disk) ONLY_DISKS="$ONLY_DISKS $2" ;;
		--order) ORDER=$2 ;; # of img: restore or capture, within the maintenance job PB_JOB
		--image) ORDER_IMAGE=$2 ;;
		--target) ORDER_DISK=$2 ;;
		esac
		shift 2
	done
	[ -n "$TOKEN" ] || TOKEN=$(cat "${PB_TOKEN_FILE:-/dev/null}")
	URL=${URL:-$(argument pb.url)} TOKEN=${TOKEN:-$(argument pb.token)} MAC=${MAC:-$(argument pb.mac)}
	URL=${URL%/}
	[ -n "$MAC" ] || { MAC=$(argument BOOTIF | tr 'A-F-' 'a-f:'); MAC=${MAC#??:}; }
	case "$URL/$MAC" in ?*/?*) ;; *) echo "pbclient: FAILED: no server address or no MAC (pb.url=, pb.mac=)"; exit 2 ;; esac
}

value() { # NAME: its value in the server's answer (shell text, quoted or plain; never evaluated)
	# Not every sed knows \a.
	sed -n "s/^$1=//p" "$WORK/work" | head -n 1 |
		sed "s/[[:space:]]*\$//; s/'\"'\"'/$QUOTE_MARK/g; s/'\\\\''/$QUOTE_MARK/g; s/'//g" | tr "$QUOTE_MARK" "'"
}

question() { # asks once for work; the answer is in $WORK/work
	if [ -n "$ORDER" ]; then
		persist 3 "$WORK/work" --max-time 120 --data-urlencode "action=$ORDER" --data-urlencode "image=$ORDER_IMAGE" \
			--data-urlencode "disk=$ORDER_DISK" --data-urlencode "overwrite=$ORDER_OVERWRITE" -d client=2 -d follow=1 \
			-d "number=$ORDER_NUMBER" "$URL/client/v1/jobs/${PB_JOB:-0}/order" || die "$ERROR"
	else
		persist 6 "$WORK/work" --max-time 120 -K "$WORK/machine" --data-urlencode "mac=$MAC" -d client=2 -d follow=1 \
			--data-urlencode "cache=$(cat "$WORK/cache.facts")" --data-urlencode "disks@$WORK/disks" \
			"$URL/client/v1/work" || die "no work: $ERROR"
	fi
	ACTION=$(value ACTION)
}

ask_for_work() {
	if [ -z "$ORDER" ]; then
		machine_facts | as_fields >"$WORK/machine"
		disk_facts >"$WORK/disks"
		cache_facts >"$WORK/cache.facts"
	fi
	if [ -n "$ORDER" ]; then say "asking $URL to $ORDER $ORDER_IMAGE"; else say "asking $URL for the work of $MAC"; fi
	asked_shown=0
	ORDER_NUMBER=$$.$(date +%s) # of all tries: the server tells a repeated order by it
	while question; [ "$ACTION" = wait ]; do # the queue is full: there is no job yet
		[ $(($(date +%s) - asked_shown)) -lt 10 ] || { say "waiting: $(value REASON)"; asked_shown=$(date +%s); }
		asked_pause=$(number "$(value RETRY_S)")
		[ "$asked_pause" -ge 1 ] && [ "$asked_pause" -le 60 ] || asked_pause=10
		sleep "$asked_pause"
	done
	STARTED=$(date +%s)
	PROTOCOL=$(number "$(value PROTOCOL)")
	TARGET_DISK=$(value TARGET_DISK) FINISH=$(value FINISH)
	[ "$ACTION" = local ] || JOB=$(value JOB)
	case "$ACTION/$JOB" in
	local/* | restore/?* | capture/?* | script/?* | maintenance/?* | cache/?* | deploy/?*) ;;
	*) JOB='' && die "the server asks for '$ACTION', which is unknown here" ;;
	esac
	say "work: $ACTION $(value IMAGE)${JOB:+ (job $JOB)}"
	choose_transport
}

stay() { # in the shell of maintenance the person goes on
	[ -z "${PB_SHELL:-}" ] || return 0
	say 'this machine stays as it is'
	while :; do sleep 3600; done
}

finish() { # does what the job asks for at its end
	[ -n "$REBOOT" ] || return 0
	sync
	case "$FINISH/${PB_INITRAMFS:-}" in
	reboot/?* | poweroff/?*) say "$FINISH"; sleep 1; busybox "$FINISH" -f; sleep 60 ;;
	reboot/ | poweroff/) say "$FINISH"; "$FINISH" ;;
	*/?*) [ "$ACTION" = local ] || stay ;;
	esac
}

main() {
	read_options "$@"
	WORK=$(mktemp -d "${TMPDIR:-/tmp}/pbclient.XXXXXX") || exit 3
	trap cleanup EXIT
	trap 'die interrupted' INT TERM HUP
	mkdir "$WORK/items" "$WORK/dev"
	: >"$WORK/pids"
	: >"$WORK/sessions"
	(umask 077 && echo "Authorization: Bearer $TOKEN" >"$WORK/auth")
	FIRMWARE=bios
	[ ! -d /sys/firmware/efi ] || FIRMWARE=uefi
	ask_for_work
	[ "$ACTION" != local ] || { say "nothing to do here $(value REASON)"; return 0; }
	printf 'start\n\n' >"$WORK/stage"
	start_progress
	"$ACTION"
	stop_progress
	say "$ACTION done: $(done_bytes) bytes in $(($(date +%s) - STARTED)) s"
	report 1 ''
	finish
}

[ -n "${PB_PARTS_ONLY:-}" ] || main "$@"
