#!/bin/sh
# pbclient.sh: asks a pbserv server for this machine's work and does it: restores an image to the disk, captures it,
# runs a script, or gives a person a shell.
#
#   pbclient.sh --url URL --token T --mac MAC [--disk DEVICE]... [--no-reboot]
#
# What is not given is read from the kernel command line (pb.url= pb.token= pb.mac=). --disk limits the choice to the
# disks given; a single one counts as named by the operator. Plain POSIX sh; protocol and rules: client/README.md.
# Its parts inventory.sh and tasks.sh lie beside it; img, which does by hand what this does for the server, calls it.
# Exit: 0 done or nothing to do, 1 the job failed (its result was posted), 2 wrong call, 3 the server gave no answer.
set -u
LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH

HERE=$(dirname "$(readlink -f "$0")")
URL='' TOKEN='' MAC='' ONLY_DISKS='' REBOOT=yes
ORDER='' ORDER_IMAGE='' ORDER_DISK='' ORDER_OVERWRITE=0
JOB='' ACTION='' TARGET_DISK='' FINISH=none
DISK='' NODE='' SECTOR='' ERROR='' WORK='' LOOP_PID='' STARTED=$(date +%s)
BOOT_CAP=1048576
# shellcheck source=inventory.sh
. "$HERE/inventory.sh"
# shellcheck source=tasks.sh
. "$HERE/tasks.sh"
DOWNLOAD_TRIES=8

# ---------------------------------------------------------------- talking

say() {
	echo "pbclient: $*"
	[ -z "$WORK" ] || echo "$*" >>"$WORK/log"
}

stage() { # STAGE [ITEM]: what the next progress message says
	printf '%s\n%s\n' "$1" "${2:-}" >"$WORK/stage"
	say "$1 ${2:-}"
	! cancelled || die cancelled
}

cancelled() { [ -e "$WORK/cancelled" ]; }

die() { # REASON: reports the failure, cleans up, ends (only ever called in the main shell)
	trap '' INT TERM HUP
	! cancelled || set -- cancelled
	say "FAILED: $*"
	stop_progress
	kill_workers
	report 0 "$*"
	[ -n "$JOB" ] || exit 3
	[ -z "${PB_INITRAMFS:-}" ] || [ "$FINISH" != none ] || stay
	exit 1
}

cleanup() {
	[ -n "$WORK" ] || return 0
	stop_progress
	kill_workers
	if [ -f "$WORK/loops" ]; then
		while read -r loop; do losetup -d "$loop"; done <"$WORK/loops"
	fi
	rm -rf "$WORK"
}

http() { # OUTPUT_FILE CURL_ARGUMENTS...: true for a 2xx answer; else ERROR is the server's own line or curl's
	http_out=$1
	shift
	: >"$http_out"
	http_code=$(curl -sS --connect-timeout 10 -H "@$WORK/auth" -o "$http_out" -w '%{http_code}' "$@" 2>"$WORK/http.err")
	http_exit=$?
	case "$http_exit/$http_code" in 0/2??) return 0 ;; esac
	ERROR="server answered $http_code: $(head -n 1 "$http_out" | cut -c 1-200)"
	[ "$http_exit" = 0 ] || ERROR=$(tail -n 1 "$WORK/http.err")
	return 1
}

persist() { # TRIES HTTP_ARGUMENTS...: http, again after a pause while the server cannot be reached or is in trouble
	persist_left=$1
	shift
	until http "$@"; do
		persist_left=$((persist_left - 1))
		case "$http_exit/$http_code" in 0/4??) return 1 ;; esac
		[ "$persist_left" -gt 0 ] || return 1
		say "$ERROR; trying again"
		sleep 3
	done
}

report() { # OK REASON
	[ -n "$JOB" ] || return 0
	tail -n 40 "$WORK/log" >"$WORK/log.tail"
	persist 5 "$WORK/answer" --max-time 30 --data-urlencode "ok=$1" --data-urlencode "reason=$2" \
		--data-urlencode "seconds=$(($(date +%s) - STARTED))" --data-urlencode "bytes=$(done_bytes)" \
		--data-urlencode "log@$WORK/log.tail" "$URL/client/v1/jobs/$JOB/result" || say "result not delivered: $ERROR"
}

# ---------------------------------------------------------------- progress and cancel

done_bytes() { cat "$WORK/done" 2>/dev/null || echo 0; }

add_done() { echo $(($(done_bytes) + $1)) >"$WORK/done.new" && mv "$WORK/done.new" "$WORK/done"; }

metered_bytes() { # bytes that the running stream's tee has passed on (it writes each byte twice)
	read -r meter_pid 2>/dev/null <"$WORK/meter" || { echo 0; return; }
	awk '/^wchar:/ { printf "%d\n", $2 / 2; n = 1 } END { if (!n) print 0 }' "/proc/$meter_pid/io" 2>/dev/null || echo 0
}

total_bytes() { # known total; while capturing, partclone's own count of used bytes replaces the partition's size
	total=$(cat "$WORK/total" 2>/dev/null || echo 0)
	if [ -s "$WORK/estimate" ] && [ -s "$WORK/source.err" ]; then
		used=$(tr '\r' '\n' <"$WORK/source.err" | awk '/^Space in use:/ { for (i = 1; i < NF; i++) if ($(i + 1) == "Blocks") u = $i }
			/^Block size:/ { b = $3 } END { if (u && b) printf "%.0f\n", u * b }')
		[ -z "$used" ] || total=$((total - $(cat "$WORK/estimate") + used))
	fi
	echo "$total"
}

progress_loop() {
	last_bytes=0 last_time=$(date +%s) shown=0
	while sleep 2; do
		if cancelled; then kill_workers; continue; fi
		[ ! -e "$WORK/over" ] || continue # img auto: the server has closed this job
		now=$(date +%s)
		bytes=$(($(done_bytes) + $(metered_bytes)))
		rate=0
		[ "$bytes" -le "$last_bytes" ] || [ "$now" -le "$last_time" ] || rate=$(((bytes - last_bytes) / (now - last_time)))
		last_bytes=$bytes last_time=$now total=$(total_bytes)
		{ read -r name; read -r item; } <"$WORK/stage"
		text="$name $item"
		[ "$total" = 0 ] || text="$text: $((bytes / 1000000)) of $((total / 1000000)) MB, $((rate / 1000000)) MB/s"
		case "$ACTION" in script | maintenance) shown=$now ;; esac # others write to the console
		[ $((now - shown)) -lt 10 ] || { echo "pbclient: $text"; shown=$now; }
		answer=$(curl -sS --max-time 10 -H "@$WORK/auth" --data-urlencode "stage=$name" --data-urlencode "item=$item" \
			--data-urlencode "bytes=$bytes" --data-urlencode "total=$total" --data-urlencode "rate=$rate" \
			--data-urlencode "message=$text" "$URL/client/v1/jobs/$JOB/progress" 2>/dev/null)
		case "$answer" in CANCEL*) : >"$WORK/cancelled"; echo "pbclient: the server cancelled this job"; kill_workers ;; esac
	done
}

stop_progress() {
	[ -z "$LOOP_PID" ] || { kill "$LOOP_PID" && wait "$LOOP_PID"; } 2>/dev/null
	LOOP_PID=''
}

workers() { # what runs for this job: members of streams, and whatever belongs to a session of its own
	cat "$WORK/pids"
	[ -s "$WORK/sessions" ] || return 0
	cat /proc/[0-9]*/stat 2>/dev/null | awk -v ours="$(tr '\n' ' ' <"$WORK/sessions")" '
		BEGIN { n = split(ours, list); for (i = 1; i <= n; i++) is[list[i]] = 1 }
		{ pid = $1; sub(/.*\) /, ""); if ($4 in is) print pid }'
}

kill_workers() {
	kill_list=$(workers)
	[ -n "$kill_list" ] || return 0
	# shellcheck disable=SC2086
	kill $kill_list 2>/dev/null
	sleep 1
	kill_list=$(workers)
	# shellcheck disable=SC2086
	[ -z "$kill_list" ] || kill -9 $kill_list 2>/dev/null
	return 0
}

# ---------------------------------------------------------------- disks

dev_file() { readlink -f "$1" 2>/dev/null || echo "$1"; }
disk_size() { blockdev --getsize64 "/dev/$1" 2>/dev/null || echo 0; }
squeezed() { tr -s '_ \t\n' ' ' | sed 's/^ //; s/ $//'; }

property() { # NAME SERIAL|MODEL
	property_value=$(lsblk -dno "$2" "/dev/$1" 2>/dev/null | squeezed)
	property_file=$(echo "$2" | tr '[:upper:]' '[:lower:]')
	for property_path in "/sys/block/$1/device/$property_file" "/sys/block/$1/$property_file"; do
		[ -n "$property_value" ] || property_value=$(squeezed 2>/dev/null <"$property_path")
	done 2>/dev/null
	echo "$property_value"
}

real_disks() { # every disk there is, without memory disks, drives for media, and what is built upon other disks
	for real_path in /sys/block/*; do
		real_name=${real_path##*/}
		case "$real_name" in
		ram* | zram* | loop* | sr* | fd* | dm-* | md* | nbd* | rbd* | drbd* | mtdblock* | mmcblk*boot* | mmcblk*rpmb | \*) continue ;;
		esac
		[ "$(cat "$real_path/size")" = 0 ] || echo "$real_name"
	done
}

outer() { # NAME: why this disk is not an internal one; nothing if it is
	[ "$(cat "/sys/block/$1/removable")" = 0 ] || echo removable
	case "$(readlink -f "/sys/block/$1")" in */usb[0-9]*) echo USB ;; */firewire*) echo FireWire ;; esac
	[ "$(cat "/sys/block/$1/device/type" 2>/dev/null)" != SD ] || echo "memory card"
	[ "$(cat "/sys/block/$1/ro")" = 0 ] || echo read-only
}

disks_below() { # SYSFS_PATH of a block device: the disk or disks on which it lies
	if [ -n "$(ls "$1/slaves" 2>/dev/null)" ]; then
		for below in "$1"/slaves/*; do disks_below "$(readlink -f "$below")"; done
	elif [ -e "$1/partition" ]; then basename "$(dirname "$1")"
	else basename "$1"; fi
}

root_disks() { # names of the disks that hold the running root file system
	awk '$5 == "/" { s = $0; sub(/.* - [^ ]+ /, "", s); sub(/ .*/, "", s); print $3, s }' /proc/self/mountinfo |
		while read -r numbers source; do
			below_path=$(readlink -f "/sys/dev/block/$numbers")
			[ -d "$below_path" ] || below_path=$(readlink -f "/sys/class/block/$(basename "$(dev_file "$source")")")
			[ ! -d "$below_path" ] || disks_below "$below_path"
		done
}

active_use() { # NAME: mounted, swapped on or held parts of a disk, one line each
	for use_path in "/sys/block/$1" "/sys/block/$1/$1"*; do
		[ -e "$use_path/dev" ] || continue
		use_node=/dev/${use_path##*/}
		awk -v d="$(cat "$use_path/dev")" -v n="$use_node" \
			'$3 == d || index($0, " " n " ") { print n " is mounted on " $5; exit }' /proc/self/mountinfo
		awk -v n="$use_node" '$1 == n { print n " is in use as swap" }' /proc/swaps
		for holder in "$use_path"/holders/*; do [ ! -e "$holder" ] || echo "$use_node is in use by ${holder##*/}"; done
	done
}

members() { # NAME: RAID, LVM and similar members on a disk, found by their signatures
	members_kind=$(blkid -p -o value -s TYPE "/dev/$1" 2>/dev/null)
	case "$members_kind" in *_member) echo "/dev/$1 is a $members_kind" ;; esac
	members_sector=$(blockdev --getss "/dev/$1" 2>/dev/null || echo 512)
	sfdisk -d "/dev/$1" 2>/dev/null | table_parts | while read -r number start size type; do
		members_kind=$(blkid -p -o value -s TYPE -O $((start * members_sector)) -S $((size * members_sector)) "/dev/$1" 2>/dev/null)
		case "$members_kind/$type" in *_member/*) echo "partition $number of /dev/$1 is a $members_kind" ;; esac
	done
}

describe() { # NAMES...: one phrase per disk, joined by semicolons
	for described in "$@"; do
		phrase=$(printf '/dev/%s %s bytes %s %s %s' "$described" "$(disk_size "$described")" "$(property "$described" MODEL)" \
			"$(property "$described" SERIAL)" "$(outer "$described" | tr '\n' ' ')$(active_use "$described" | head -n 1)" | squeezed)
		printf '%s; ' "$phrase"
	done | sed 's/; $//'
}

matching() { # SELECTOR, disk names on stdin: those that the job's TARGET_DISK means
	wanted=$(echo "${1#*:}" | squeezed)
	while read -r match_name; do
		case "$1" in
		serial:*) match=$(property "$match_name" SERIAL) ;;
		model:*) match=$(property "$match_name" MODEL) ;;
		size:*) match=$(disk_size "$match_name") ;;
		by-id:*) match=$match_name wanted=$(basename "$(dev_file "/dev/disk/by-id/${1#by-id:}")") ;;
		*) match=$match_name wanted=$(basename "$(dev_file "$1")") ;;
		esac
		[ "$match" != "$wanted" ] || echo "$match_name"
	done
}

choose_disk() { # NEEDED_BYTES: sets DISK and SECTOR, or refuses; nothing has been written yet
	roots=$(root_disks)
	pool=''
	for pool_name in $(if [ -n "$ONLY_DISKS" ]; then for d in $ONLY_DISKS; do basename "$(dev_file "$d")"; done; else real_disks; fi); do
		[ -d "/sys/block/$pool_name" ] || die "/dev/$pool_name is not a whole disk"
		case " $(echo "$roots" | tr '\n' ' ') " in *" $pool_name "*) ;; *) pool="$pool $pool_name" ;; esac
	done
	named=yes
	# shellcheck disable=SC2086
	if [ -n "$TARGET_DISK" ] && [ "$(echo $ONLY_DISKS | wc -w)" != 1 ]; then
		case "$TARGET_DISK" in /dev/loop*) [ -n "$ONLY_DISKS" ] || pool="$pool $(basename "$TARGET_DISK")" ;; esac
		chosen=$(printf '%s\n' $pool | matching "$TARGET_DISK")
		[ -n "$chosen" ] || die "refused: no disk is $TARGET_DISK; present: $(describe $pool)"
	elif [ -n "$ONLY_DISKS" ] && [ "$(echo $ONLY_DISKS | wc -w)" = 1 ]; then
		chosen=$pool
		[ -n "$chosen" ] || die "refused: $ONLY_DISKS holds the running system"
	else
		named=''
		chosen=''
		for pool_name in $pool; do
			[ -n "$(outer "$pool_name")" ] || [ "$(disk_size "$pool_name")" -lt "$1" ] || chosen="$chosen $pool_name"
		done
		[ -n "$chosen" ] || die "refused: no internal disk has the $1 bytes needed; present: $(describe $pool)"
	fi
	# shellcheck disable=SC2086
	[ "$(echo $chosen | wc -w)" = 1 ] || die "refused: several disks could be meant: $(describe $chosen)"
	chosen=$(echo "$chosen" | tr -d ' ')
	check_disk "$chosen" "$1"
	DISK=/dev/$chosen
	SECTOR=$(blockdev --getss "$DISK")
	say "disk: $(describe "$chosen")"
}

check_disk() { # NAME NEEDED_BYTES
	[ -b "/dev/$1" ] || die "refused: there is no disk /dev/$1"
	busy=$(active_use "$1" | head -n 3 | tr '\n' ';')
	[ -z "$busy" ] || die "refused: the disk is in use: $busy $(describe "$1")"
	[ -n "$named" ] || busy=$(members "$1" | head -n 3 | tr '\n' ';')
	[ -z "$busy" ] || die "refused: the disk holds RAID or LVM members and the job does not name it: $busy $(describe "$1")"
	[ "$ACTION" = capture ] || [ "$(cat "/sys/block/$1/ro")" = 0 ] || die "refused: /dev/$1 is read-only"
	[ "$(disk_size "$1")" -ge "$2" ] || die "refused: the disk is too small: the image needs $2 bytes, this is $(describe "$1")"
}

# ---------------------------------------------------------------- partitions

table_parts() { # sfdisk dump on stdin: "number start size type" per partition, in sectors
	awk '/ : start=/ { n = $1; sub(/^.*[^0-9]/, "", n)
		split("start size type", key, " ")
		for (i = 1; i <= 3; i++) { v = $0; sub(".*" key[i] "= *", "", v); sub(/[, ].*/, "", v); val[i] = v }
		print n, val[1], val[2], val[3] }'
}

is_extended() { case "$1" in 5 | f | 85 | c5 | 0x5 | 0xf) return 0 ;; *) return 1 ;; esac; }

reread_table() {
	sync
	# The kernel's own reading may know fewer kinds of tables than partx, which tells it what to add.
	blockdev --rereadpt "$DISK" 2>/dev/null
	partx -u "$DISK" 2>/dev/null
	! command -v udevadm >/dev/null || udevadm settle --timeout=10 2>/dev/null
	return 0
}

part_node() { # NUMBER START SIZE: sets NODE, the block device of that partition (0: the whole disk)
	NODE=$DISK
	[ "$1" != 0 ] || return 0
	part_name=${DISK##*/}$1
	case "$DISK" in *[0-9]) part_name=${DISK##*/}p$1 ;; esac
	part_sys=/sys/class/block/$part_name
	part_want="$(($2 * SECTOR / 512)) $(($3 * SECTOR / 512))"
	for part_try in 1 2 3 4 5 6; do
		if [ "$(cat "$part_sys/start" "$part_sys/size" 2>/dev/null | tr '\n' ' ')" = "$part_want " ]; then
			private_node "$part_name" "$(cat "$part_sys/dev")"
			return
		fi
		[ "$part_try" = 6 ] || { sleep 0.5; [ "$part_try" != 3 ] || reread_table; }
	done
	# The kernel shows no such partition (a loop device without partition scanning): a loop device over its bytes.
	NODE=$(losetup --show -f -o $(($2 * SECTOR)) --sizelimit $(($3 * SECTOR)) -b "$SECTOR" "$DISK") ||
		die "partition $1 of $DISK does not appear"
	echo "$NODE" >>"$WORK/loops"
}

private_node() { # NAME MAJOR:MINOR: sets NODE to the node in /dev, or to one of our own if that is missing or stale
	NODE=/dev/$1
	if [ -b "$NODE" ]; then
		# shellcheck disable=SC2046,SC2183
		[ "$(printf '%d:%d' $(stat -c '0x%t 0x%T' "$NODE"))" != "$2" ] || return 0
	fi
	NODE=$WORK/dev/$1
	rm -f "$NODE"
	mknod "$NODE" b "${2%:*}" "${2#*:}" || die "cannot make a device node for $1"
}

# ---------------------------------------------------------------- streams

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
		*) ERROR="$ERROR$1 failed ($join_status: $(tr '\r' '\n' 2>/dev/null <"$WORK/$1.err" | grep -v '^ *$' | tail -n 1 | cut -c 1-150)); " ;;
		esac
		shift 2
	done
	rm -f "$WORK/meter"
	: >"$WORK/pids"
	! cancelled || die cancelled
	[ -n "$ERROR" ] || [ -z "${broken:-}" ] || ERROR='a stream broke'
	broken=''
	[ -z "$ERROR" ]
}

download() { # ITEM STORED_BYTES: writes the item to stdout; a broken transfer goes on where it stopped
	at=0 tries=0
	while [ "$at" -lt "$2" ]; do
		cancelled && return 1
		# The group's stdout is the stream; curl's closing line goes to stderr.
		curl -sSf -C "$at" --connect-timeout 10 --speed-limit 1 --speed-time 120 -H "@$WORK/auth" \
			-w '%{stderr}\nSTAT %{http_code} %{size_download}\n' "$URL/client/v1/jobs/$JOB/items/$1" 2>"$WORK/curl.err" &
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
		tries=$((tries + 1))
		[ "$got" = 0 ] || tries=1
		[ "$tries" -lt "$DOWNLOAD_TRIES" ] || return 1
		echo "item $1: ${why:-connection ended} after $at of $2 bytes; going on from there" >>"$WORK/log"
		sleep "$tries"
	done
	[ "$at" = "$2" ] || { echo "item $1 has $at bytes, the manifest says $2" >"$WORK/download.err"; return 1; }
}

small_item() { # ITEM STORED_BYTES SHA256: downloads into $WORK/items and verifies
	download "$1" "$2" >"$WORK/items/$1" || die "item $1: $(tail -n 1 "$WORK/download.err")"
	[ "$(sha256sum <"$WORK/items/$1" | cut -d ' ' -f 1)" = "$3" ] || die "item $1: checksum mismatch"
}

stream_in() { # ITEM STORED_BYTES SHA256 WRITER...: server -> hash + zstd -> writer
	item=$1 stored=$2 sum=$3
	shift 3
	fifos f1 f2 f3 f4
	rm -f "$WORK/download.err" "$WORK/sum"
	download "$item" "$stored" >"$WORK/f1" &
	p1=$!
	tee "$WORK/f2" <"$WORK/f1" >"$WORK/f3" 2>"$WORK/tee.err" &
	p2=$!
	sha256sum <"$WORK/f2" >"$WORK/sum" 2>"$WORK/sha256sum.err" &
	p3=$!
	zstd -dcq <"$WORK/f3" >"$WORK/f4" 2>"$WORK/zstd.err" &
	p4=$!
	"$@" <"$WORK/f4" >/dev/null 2>"$WORK/writer.err" &
	p5=$!
	printf '%s\n' $p1 $p2 $p3 $p4 $p5 >>"$WORK/pids"
	echo $p2 >"$WORK/meter"
	join download $p1 writer $p5 zstd $p4 tee $p2 sha256sum $p3 || die "item $item: $ERROR"
	[ "$(cut -d ' ' -f 1 "$WORK/sum")" = "$sum" ] || die "item $item: checksum mismatch: the bytes are not those of the image"
	add_done "$stored"
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
	curl -sS -T - -H 'Expect:' -H "@$WORK/auth" --connect-timeout 10 -o "$WORK/answer" -w '%{http_code}' \
		"$URL/client/v1/jobs/$JOB/items/$item" <"$WORK/f6" >"$WORK/code" 2>"$WORK/curl.err" &
	p7=$!
	printf '%s\n' $p1 $p2 $p3 $p4 $p5 $p6 $p7 >>"$WORK/pids"
	echo $p2 >"$WORK/meter"
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

# ---------------------------------------------------------------- restore

read_manifest() { # fetches it and checks that this script understands every line
	stage manifest
	persist 5 "$WORK/manifest" --max-time 60 "$URL/client/v1/jobs/$JOB/manifest" || die "no manifest: $ERROR"
	[ "$(head -n 1 "$WORK/manifest")" = 'pbserv-image 1' ] || die 'the manifest is of a kind this client does not know'
	read -r _ IMAGE_SIZE IMAGE_SECTOR LABEL IMAGE_FIRMWARE <<-END
		$(grep '^disk ' "$WORK/manifest")
	END
	[ -n "${IMAGE_FIRMWARE:-}" ] || die 'the manifest has no disk line'
	sed -n 's/^item //p' "$WORK/manifest" >"$WORK/list"
	while read -r name kind _ _ sum _; do
		case "$name/$kind" in */*/* | .*/*) die "the manifest names an item $name of kind $kind" ;; esac
		case "$kind" in
		sfdisk | boot | raw | swap) ;;
		partclone.*) command -v partclone.restore >/dev/null || die 'partclone is not installed here' ;;
		file) die "item $name is an opaque file: this image cannot be restored to a disk" ;;
		*) die "item $name is of unknown kind $kind" ;;
		esac
		[ "${#sum}" = 64 ] || die "item $name has no checksum"
	done <"$WORK/list"
	awk '$2 != "sfdisk" && $2 != "boot" && $2 != "swap" { n += $4 } END { printf "%.0f\n", n }' "$WORK/list" >"$WORK/total"
}

needed_bytes() { # what the partitions occupy; GPT keeps its second table behind them
	if [ "$LABEL" = none ]; then echo "$IMAGE_SIZE"; return; fi
	needed_end=$(awk '{ e = $2 + $3; if (e > m) m = e } END { printf "%.0f\n", m }' "$WORK/parts")
	[ "$LABEL" != gpt ] || needed_end=$((needed_end + 33))
	echo $((needed_end * IMAGE_SECTOR))
}

prepare_restore() { # downloads every small item and checks the plan before the disk is touched
	: >"$WORK/parts"
	while read -r name kind _ stored sum _; do
		case "$kind" in
		sfdisk | boot | swap)
			[ "$stored" -le $((4 * BOOT_CAP)) ] || die "item $name of kind $kind is too large"
			small_item "$name" "$stored" "$sum" </dev/null
			;;
		esac
		case "$kind" in
		sfdisk) cp "$WORK/items/$name" "$WORK/table" && table_parts <"$WORK/table" >"$WORK/parts" ;;
		boot) zstd -dcq <"$WORK/items/$name" >"$WORK/boot" || die "item $name cannot be unpacked" ;;
		esac
	done <"$WORK/list"
	[ "$LABEL" = none ] || [ -s "$WORK/parts" ] || die 'the image has no partition table'
	while read -r name kind number _; do
		case "$kind" in sfdisk | boot) continue ;; esac
		[ "$number" = 0 ] || grep -q "^$number " "$WORK/parts" || die "item $name is for partition $number, which the table lacks"
		[ "$number" != 0 ] || [ "$LABEL" = none ] || die "item $name is for no partition"
	done <"$WORK/list"
}

write_table() {
	stage partition "$DISK"
	[ "$LABEL" != none ] || return 0
	# Without last-lba the table takes the size of this disk, not of the one it came from.
	grep -v '^last-lba:\|^device:' "$WORK/table" >"$WORK/table.new"
	sfdisk -q --no-reread --no-tell-kernel --force --wipe always --wipe-partitions always "$DISK" \
		<"$WORK/table.new" >"$WORK/sfdisk.err" 2>&1 || die "sfdisk failed: $(tail -n 1 "$WORK/sfdisk.err")"
	if [ "$LABEL" = gpt ]; then
		sgdisk -e "$DISK" >"$WORK/sgdisk.err" 2>&1 || die "sgdisk failed: $(tail -n 1 "$WORK/sgdisk.err")"
	fi
	[ ! -s "$WORK/boot" ] || write_boot_area
	reread_table
}

write_boot_area() { # the first sector's table and, for GPT, the tables behind it are the new ones and stay
	code=446 from=1
	[ "$LABEL" != gpt ] || { code=440 from=$(sed -n 's/^first-lba: *//p' "$WORK/table"); }
	dd if="$WORK/boot" of="$DISK" bs=1 count="$code" conv=notrunc 2>"$WORK/dd.err" ||
		die "writing the boot code failed: $(tail -n 1 "$WORK/dd.err")"
	[ "$(wc -c <"$WORK/boot")" -gt $((${from:-34} * SECTOR)) ] || return 0
	dd if="$WORK/boot" of="$DISK" bs="$SECTOR" skip="${from:-34}" seek="${from:-34}" conv=notrunc 2>"$WORK/dd.err" ||
		die "writing the boot area failed: $(tail -n 1 "$WORK/dd.err")"
}

restore_item() { # NAME KIND NUMBER STORED SHA256
	case "$2" in sfdisk | boot) return 0 ;; esac
	# shellcheck disable=SC2046
	part_node "$3" $(awk -v n="$3" '$1 == n { print $2, $3 }' "$WORK/parts")
	stage restore "$1"
	case "$2" in
	partclone.*) stream_in "$1" "$4" "$5" partclone.restore -q -f 1 -L "$WORK/partclone.log" -s - -o "$NODE" ;;
	raw) stream_in "$1" "$4" "$5" dd of="$NODE" bs=1048576 conv=fsync ;;
	swap)
		swap_uuid=$(sed -n 's/^UUID=//p' "$WORK/items/$1") swap_label=$(sed -n 's/^LABEL=//p' "$WORK/items/$1")
		mkswap ${swap_uuid:+-U "$swap_uuid"} ${swap_label:+-L "$swap_label"} "$NODE" >"$WORK/mkswap.err" 2>&1 ||
			die "mkswap failed: $(tail -n 1 "$WORK/mkswap.err")"
		;;
	esac
}

restore() {
	read_manifest
	prepare_restore
	choose_disk "$(needed_bytes)"
	[ "$SECTOR" = "$IMAGE_SECTOR" ] ||
		die "refused: $DISK has sectors of $SECTOR bytes, the image was made on sectors of $IMAGE_SECTOR bytes"
	[ "$IMAGE_FIRMWARE" = "$FIRMWARE" ] || say "note: the image was captured on $IMAGE_FIRMWARE, this machine started with $FIRMWARE"
	write_table
	# The loop body must not read the list as its own input.
	while read -r name kind number stored sum _ <&3; do
		restore_item "$name" "$kind" "$number" "$stored" "$sum"
	done 3<"$WORK/list"
	stage finish
	sync
	blockdev --flushbufs "$DISK" || die "flushing $DISK failed"
	! cancelled || die cancelled
}

# ---------------------------------------------------------------- capture

put_small() { # ITEM KIND FILE: uploads a small file as it is and adds it to the manifest
	persist 3 "$WORK/answer" --max-time 120 -T "$3" "$URL/client/v1/jobs/$JOB/items/$1" || die "item $1: $ERROR"
	read -r STORED server_sum <"$WORK/answer"
	SUM=$(sha256sum <"$3" | cut -d ' ' -f 1)
	[ "$SUM" = "$server_sum" ] || die "item $1: checksum mismatch: the server did not get the bytes that were sent"
	echo "item $1 $2 ${4:-0} $STORED $SUM $STORED" >>"$WORK/manifest"
}

put_stream() { # ITEM KIND NUMBER READER...: uploads a stream, starting again if the connection broke
	put_name=$1 put_kind=$2 put_number=$3
	shift 3
	put_try=1
	until stream_out "$put_name" "$@"; do
		case "$ERROR" in curl*) ;; *) die "item $put_name: $ERROR" ;; esac
		[ "$put_try" -lt 3 ] || die "item $put_name: $ERROR"
		say "item $put_name: $ERROR; starting it again"
		put_try=$((put_try + 1))
		sleep 3
	done
	add_done "$PLAIN"
	echo "item $put_name $put_kind $put_number $STORED $SUM $PLAIN" >>"$WORK/manifest"
}

check_ntfs() { # NODE: refuses what Windows has not closed
	ntfs-3g.probe --readwrite "$1" >/dev/null 2>"$WORK/ntfs.err"
	case "$?" in
	0) ;;
	14) die "refused: $1 holds a hibernated Windows (or fast start-up is on): shut it down fully first" ;;
	*) die "refused: NTFS on $1 is not clean: $(head -n 1 "$WORK/ntfs.err")" ;;
	esac
	ntfs_flags=$(ntfsinfo -m "$1" 2>/dev/null | sed -n 's/.*Volume Flags: *\(0x[0-9a-fA-F]*\).*/\1/p')
	[ $((${ntfs_flags:-1} & 1)) = 0 ] || die "refused: NTFS on $1 is marked dirty: let Windows check it first"
}

capture_part() { # NUMBER SIZE_BYTES: chooses the way by what blkid sees
	type=$(blkid -p -o value -s TYPE "$NODE" 2>/dev/null)
	[ "$type" != ntfs ] || check_ntfs "$NODE"
	stage capture "p$1"
	if [ "$type" = swap ]; then
		blkid -p -o export "$NODE" | grep '^UUID=\|^LABEL=' >"$WORK/swap"
		put_small "p$1.swap" swap "$WORK/swap" "$1"
		return
	fi
	tool=''
	case "$type" in
	ext2 | ext3 | ext4 | xfs | btrfs | vfat | ntfs | exfat | f2fs | hfsplus)
		! command -v "partclone.$type" >/dev/null || tool=partclone.$type
		;;
	esac
	# Measured: partclone 0.3.23 loses the ends of files on FAT12, without a word. FAT12 is small: copy every sector.
	[ "$type/$(blkid -p -o value -s VERSION "$NODE" 2>/dev/null)" != vfat/FAT12 ] || tool=''
	if [ "$type/${tool:+yes}" = vfat/yes ] && ! "$tool" -q -f 1 -c -L "$WORK/partclone.log" -s "$NODE" -o - >/dev/null 2>&1; then
		say "partition $1: partclone cannot read this FAT; copying every sector"
		tool=''
	fi
	echo "$2" >"$WORK/estimate"
	: >"$WORK/source.err"
	if [ -n "$tool" ]; then
		put_stream "p$1.$type.zst" "$tool" "$1" "$tool" -c -f 1 -L "$WORK/partclone.log" -s "$NODE" -o -
	else
		put_stream "p$1.raw.zst" raw "$1" dd if="$NODE" bs=1048576
	fi
	# The total is corrected from the estimate to what it was.
	echo $(($(cat "$WORK/total") - $2 + PLAIN)) >"$WORK/total.new" && mv "$WORK/total.new" "$WORK/total"
	: >"$WORK/estimate"
}

capture_table() { # sets LABEL and writes $WORK/parts; uploads table and boot area
	LABEL=$(blkid -p -o value -s PTTYPE "$DISK" 2>/dev/null)
	printf 'pbserv-image 1\ndisk %s %s %s %s\n' "$(blockdev --getsize64 "$DISK")" "$SECTOR" "${LABEL:-none}" "$FIRMWARE" >"$WORK/manifest"
	case "$LABEL" in
	'')
		[ -n "$(blkid -p -o value -s TYPE "$DISK" 2>/dev/null)" ] || die "refused: $DISK holds neither partitions nor a file system"
		echo "0 0 $(($(blockdev --getsize64 "$DISK") / SECTOR)) whole" >"$WORK/parts"
		return
		;;
	gpt | dos) ;;
	*) die "refused: partition tables of type $LABEL are not supported" ;;
	esac
	sfdisk -d "$DISK" >"$WORK/table" 2>"$WORK/sfdisk.err" || die "sfdisk failed: $(tail -n 1 "$WORK/sfdisk.err")"
	table_parts <"$WORK/table" >"$WORK/parts"
	[ -s "$WORK/parts" ] || die "refused: the partition table of $DISK is empty"
	put_small table.sfdisk sfdisk "$WORK/table"
	boot_bytes=$(($(awk 'NR == 1 || $2 + 0 < m { m = $2 + 0 } END { printf "%.0f\n", m }' "$WORK/parts") * SECTOR))
	[ "$boot_bytes" -le "$BOOT_CAP" ] || boot_bytes=$BOOT_CAP
	put_stream boot.zst boot 0 dd if="$DISK" bs="$SECTOR" count=$((boot_bytes / SECTOR))
}

capture() {
	choose_disk 1
	stage partition "$DISK"
	capture_table
	awk -v s="$SECTOR" -v n="$(done_bytes)" '{ n += $3 * s } END { printf "%.0f\n", n }' "$WORK/parts" >"$WORK/total"
	while read -r number start size type <&3; do
		is_extended "$type" && continue # sfdisk makes it and its chain anew
		part_node "$number" "$start" "$size"
		capture_part "$number" $((size * SECTOR))
	done 3<"$WORK/parts"
	stage commit
	persist 3 "$WORK/answer" --max-time 600 -H 'Content-Type: text/plain' --data-binary "@$WORK/manifest" \
		"$URL/client/v1/jobs/$JOB/commit" || die "the server did not take the image: $ERROR"
	grep -q '^COMMITTED' "$WORK/answer" || die "the server did not take the image: $(head -n 1 "$WORK/answer")"
}

# ---------------------------------------------------------------- the course of things

argument() { # NAME: its value on the kernel command line
	tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p" | tail -n 1
}

usage() { sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2; }

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
	sed -n "s/^$1=//p" "$WORK/work" | head -n 1 | sed "s/[[:space:]]*\$//; s/'\"'\"'/\a/g; s/'\\\\''/\a/g; s/'//g" | tr '\a' "'"
}

ask_for_work() {
	if [ -n "$ORDER" ]; then
		say "asking $URL to $ORDER $ORDER_IMAGE"
		persist 3 "$WORK/work" --max-time 30 --data-urlencode "action=$ORDER" --data-urlencode "image=$ORDER_IMAGE" \
			--data-urlencode "disk=$ORDER_DISK" --data-urlencode "overwrite=$ORDER_OVERWRITE" \
			"$URL/client/v1/jobs/${PB_JOB:-0}/order" || die "$ERROR"
	else
		machine_facts | as_fields >"$WORK/machine"
		disk_facts >"$WORK/disks"
		say "asking $URL for the work of $MAC"
		persist 6 "$WORK/work" --max-time 30 -K "$WORK/machine" --data-urlencode "mac=$MAC" \
			--data-urlencode "disks@$WORK/disks" "$URL/client/v1/work" || die "no work: $ERROR"
	fi
	ACTION=$(value ACTION) TARGET_DISK=$(value TARGET_DISK) FINISH=$(value FINISH)
	[ "$ACTION" = local ] || JOB=$(value JOB)
	case "$ACTION/$JOB" in
	local/* | restore/?* | capture/?* | script/?* | maintenance/?*) ;;
	*) JOB='' && die "the server asks for '$ACTION', which is unknown here" ;;
	esac
	say "work: $ACTION $(value IMAGE)${JOB:+ (job $JOB)}"
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
	progress_loop &
	LOOP_PID=$!
	"$ACTION"
	stop_progress
	say "$ACTION done: $(done_bytes) bytes in $(($(date +%s) - STARTED)) s"
	report 1 ''
	finish
}

[ -n "${PB_PARTS_ONLY:-}" ] || main "$@"
