# Part of pbclient.sh: the capture of a disk.
# shellcheck shell=sh disable=SC2154,SC2034  # the variables of pbclient.sh

put_way() { # how items are sent: to this server at once, or (FOLLOW) where it says, before a byte of them goes to it
	if [ "$(value FOLLOW)" = 1 ]; then
		printf '%s\n' location 'max-redirs = 3' 'proto-redir = "http,https"' 'expect100-timeout = 120' 'header = "Expect: 100-continue"'
	else
		echo 'header = "Expect:"'
	fi >"$WORK/put.way"
	# So that a store without the room refuses before the first byte.
	echo "header = \"X-Expected-Bytes: $EXPECTED\"" >>"$WORK/put.way"
}

put_small() { # ITEM KIND FILE: uploads a small file as it is and adds it to the manifest
	persist "$PART_TRIES" "$WORK/answer" --max-time 120 -K "$WORK/put.way" -T "$3" "$URL/client/v1/jobs/$JOB/items/$1" || die "item $1: $ERROR"
	read -r STORED server_sum <"$WORK/answer"
	SUM=$(sha256sum <"$3" | cut -d ' ' -f 1)
	[ "$SUM" = "$server_sum" ] || die "item $1: checksum mismatch: the server did not get the bytes that were sent"
	echo "item $1 $2 ${4:-0} $STORED $SUM $STORED" >>"$WORK/manifest"
}

put_stream() { # ITEM KIND NUMBER READER...: uploads a stream, starting again if the server is away or the connection broke
	put_name=$1 put_kind=$2 put_number=$3
	shift 3
	put_try=1 put_broken=1
	until stream_out "$put_name" "$@"; do
		case "$ERROR" in
		'curl failed (7:'* | 'server answered 50'[0-4]*) ;; # it is away
		curl*) put_broken=$((put_broken + 1)) ;;
		*) die "item $put_name: $ERROR" ;;
		esac
		[ "$put_try" -lt "$PART_TRIES" ] && [ "$put_broken" -le 3 ] || die "item $put_name: $ERROR"
		say "item $put_name: $ERROR; starting it again"
		put_try=$((put_try + 1))
		sleep "$RETRY_PAUSE"
	done
	add_done "$PLAIN"
	echo "item $put_name $put_kind $put_number $STORED $SUM $PLAIN" >>"$WORK/manifest"
}

# ---------------------------------------------------------------- in parts

part_size() { # bytes of a part: what the server said, less on a machine with little memory (two of them lie in it)
	part_most=$(number "$(value PART_BYTES)")
	[ "$(memory_mb)" -ge 1024 ] || [ "$part_most" -le 16777216 ] || part_most=16777216
	echo $((part_most / 65536 * 65536))
}

put_parts() { # ITEM KIND NUMBER READER...: uploads a stream in parts; after an outage from the part that the server names
	put_name=$1 put_kind=$2 put_number=$3
	shift 3
	part_first=1 put_try=1
	until send_parts "$@"; do
		part_next=$(sed -n 's/.*next=\([0-9][0-9]*\).*/\1/p' "$WORK/put.err" 2>/dev/null | tail -n 1)
		[ -n "$part_next" ] && [ "$put_try" -lt 4 ] || die "item $put_name: $ERROR"
		say "item $put_name: the server wants part $part_next; reading up to it again"
		part_first=$part_next put_try=$((put_try + 1))
	done
	persist "$PART_TRIES" "$WORK/answer" --max-time 1800 -d "parts=$part" -d "bytes=$PLAIN" \
		"$URL/client/v1/jobs/$JOB/items/$put_name/complete" || die "item $put_name: $ERROR"
	read -r STORED SUM <"$WORK/answer"
	[ "${#SUM}" = 64 ] || die "item $put_name: the server answered $STORED $SUM"
	add_done "$PLAIN"
	echo "item $put_name $put_kind $put_number $STORED $SUM $PLAIN" >>"$WORK/manifest"
}

send_parts() { # READER...: one is read and compressed while the one before it is sent; sets part and PLAIN
	fifos f1
	rm -f "$WORK/put.err"
	"$@" >"$WORK/f1" 2>"$WORK/source.err" </dev/null &
	p1=$!
	echo "$p1" >"$WORK/pids"
	exec 5<"$WORK/f1"
	echo "$p1 1 device" >"$WORK/meter"
	part=0 PLAIN=0 put_pid='' part_bytes=$(part_size) send_error=''
	while [ -z "$send_error" ]; do
		read_part $((part + 1)) || break
		[ "$PART_GOT" -gt 0 ] || break
		part=$((part + 1)) PLAIN=$((PLAIN + PART_GOT))
		wait_for_part || break
		if [ "$part" -ge "$part_first" ]; then
			put_part "$part" "$WORK/slot$((part % 2))" &
			put_pid=$!
			printf '%s\n' "$p1" "$put_pid" >"$WORK/pids"
		fi
		[ "$PART_GOT" = "$part_bytes" ] || break
	done
	wait_for_part
	exec 5<&-
	rm -f "$WORK/slot0" "$WORK/slot1"
	join source $p1
	joined=$?
	[ -z "$send_error" ] || ERROR=$send_error joined=1
	return $joined
}

read_part() { # NUMBER: the next bytes of the stream into their slot; sets PART_GOT
	if [ "$1" -lt "$part_first" ]; then
		dd bs=65536 count=$((part_bytes / 65536)) iflag=fullblock of=/dev/null <&5 2>"$WORK/dd.err"
	else
		dd bs=65536 count=$((part_bytes / 65536)) iflag=fullblock <&5 2>"$WORK/dd.err" |
			zstd -T0 -1 -qc >"$WORK/slot$(($1 % 2))" 2>"$WORK/zstd.err" ||
			{ send_error="zstd failed: $(last_line "$WORK/zstd.err")"; return 1; }
	fi
	PART_GOT=$(number "$(sed -n 's/^\([0-9]*\) byte.*/\1/p' "$WORK/dd.err")")
	! cancelled || die cancelled
}

put_part() { # NUMBER FILE: runs beside the reading; put.err tells why it failed
	ERROR='' put_sum=$(sha256sum <"$2" | cut -d ' ' -f 1)
	persist "$PART_TRIES" "$WORK/put.answer" --speed-limit 1 --speed-time 300 -T "$2" -K "$WORK/put.way" -H 'Content-Encoding: zstd' \
		-H "X-Checksum-SHA256: $put_sum" "$URL/client/v1/jobs/$JOB/items/$put_name/parts/$1?kind=$put_kind" &&
		read -r put_next _ <"$WORK/put.answer" && ERROR="the server took part $1 and wants next=$put_next" &&
		[ "$put_next" -gt "$1" ] && return 0
	# The line of a refusal says which part the server wants.
	echo "$ERROR" >"$WORK/put.err"
	return 1
}

wait_for_part() { # the upload that runs, if one does
	[ -n "$put_pid" ] || return 0
	uptime_ms
	wait_before=$NOW_MS
	wait "$put_pid"
	put_status=$?
	put_pid=''
	uptime_ms
	WAITED_MS=$((WAITED_MS + NOW_MS - wait_before))
	[ "$put_status" = 0 ] || { send_error=$(last_line "$WORK/put.err"); return 1; }
}

# ---------------------------------------------------------------- what is on the disk

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

check_closed() { # NODE TYPE: refuses what its system will go on with; restored, it would resume a memory that is not of its disk
	case "$2" in
	ntfs) check_ntfs "$1" ;;
	swsuspend) die "refused: $1 holds a hibernated Linux: start it and shut it down" ;;
	esac
}

capture_part() { # NUMBER SIZE_BYTES: chooses the way by what blkid sees
	type=$(blkid -p -o value -s TYPE "$NODE" 2>/dev/null)
	check_closed "$NODE" "$type" # again: that of expect_bytes was before all other partitions
	stage capture "p$1"
	if [ "$type" = swap ]; then
		for swap_key in UUID LABEL; do
			swap_value=$(blkid -p -o value -s "$swap_key" "$NODE" | sed 's/\\/\\\\/g')
			[ -z "$swap_value" ] || printf '%s=%s\n' "$swap_key" "$swap_value"
		done >"$WORK/swap"
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
	if [ "$type/${tool:+yes}" = vfat/yes ] && ! "$tool" -q -f 1 -c -a 0 -L "$WORK/partclone.log" -s "$NODE" -o - >/dev/null 2>&1; then
		say "partition $1: partclone cannot read this FAT; copying every sector"
		tool=''
	fi
	echo "$2" >"$WORK/estimate"
	: >"$WORK/source.err"
	put=put_stream
	[ "$(part_size)" = 0 ] || put=put_parts
	if [ -n "$tool" ]; then
		note_facts "p$1.$type.zst" "fs $type" "fs_bytes $(fs_bytes "$NODE" "$type")" "tool partclone-$(partclone_version "$tool")"
		$put "p$1.$type.zst" "$tool" "$1" "$tool" -c -a 0 -f 1 -L "$WORK/partclone.log" -s "$NODE" -o -
	else
		note_facts "p$1.raw.zst" "fs $type" 'tool dd'
		$put "p$1.raw.zst" raw "$1" dd if="$NODE" bs=1048576
	fi
	# The total is corrected from the estimate to what it was.
	echo $(($(cat "$WORK/total") - $2 + PLAIN)) >"$WORK/total.new" && mv "$WORK/total.new" "$WORK/total"
	: >"$WORK/estimate"
}

note_facts() { # ITEM "KEY VALUE"...: lines for the manifest, behind its items; what is empty is no fact
	note_item=$1
	shift
	for note_fact in "$@"; do
		case "$note_fact" in *' ') ;; *) echo "fact $note_item $note_fact" >>"$WORK/facts" ;; esac
	done
}

note_origin() { # what the image is taken of
	note_facts - "origin_mac $(quoted "$MAC")" "origin_disk $(quoted "$DISK")" \
		"origin_model $(quoted "$(property "${DISK##*/}" MODEL)")" "origin_serial $(quoted "$(property "${DISK##*/}" SERIAL)")"
}

quoted() { # TEXT: percent-encoded as the manifest wants it, its first 200 printable characters of ASCII
	printf %s "$1" | tr -cd '[:print:]' | cut -c 1-200 | tr -d '\n' | od -An -v -tu1 | tr -s ' \n' '\n\n' | grep . |
		awk '{ c = sprintf("%c", $1 + 0)
			if (c ~ /[A-Za-z0-9_.~\/:+,=@-]/) printf "%s", c; else printf "%%%02X", $1 }'
}

partclone_version() { "$1" -v 2>&1 | sed -n 's/.*v\([0-9][0-9.]*\).*/\1/p' | head -n 1; }

at_byte() { # NODE OFFSET COUNT big|little: the number that stands there
	od -An -v -tu1 -j "$2" -N "$3" "$1" | tr -s ' \n' '\n\n' | grep . |
		awk -v order="$4" '{ v[NR] = $1 } END { for (i = 1; i <= NR; i++) n = n * 256 + v[order == "big" ? i : NR + 1 - i]
			printf "%.0f\n", n }'
}

fs_bytes() { # NODE TYPE: bytes of the file system, which may be less than the partition's; nothing where it is not known
	case "$2" in
	ext[234]) dumpe2fs -h "$1" 2>/dev/null | awk '/^Block count:/ { n = $3 } /^Block size:/ { if (n) printf "%.0f\n", n * $3 }' ;;
	xfs) echo $(($(at_byte "$1" 4 4 big) * $(at_byte "$1" 8 8 big))) ;;
	btrfs) at_byte "$1" 65648 8 little ;;
	ntfs) echo $((($(at_byte "$1" 40 8 little) + 1) * $(at_byte "$1" 11 2 little))) ;; # its boot sector's copy is behind it
	esac
}

used_bytes() { # NODE TYPE: bytes of the file system that hold something; nothing where it does not tell
	case "$2" in
	# Less its tables and journal, which are nearly all zeros. It tells their size itself; where not, free inodes and journal.
	ext[234]) dumpe2fs -h "$1" 2>/dev/null | awk '/^Block count:/ { n = $3 } /^Free blocks:/ { f = $3 } /^Block size:/ { b = $3 }
		/^Overhead clusters:/ { o = $3 } /^Free inodes:/ { i = $3 } /^Inode size:/ { s = $3 }
		/^Total journal blocks:/ { j = $4 } /^Journal length:/ { j = $3 }
		END { e = i * s + j * b; if (o * b > e) e = o * b; u = (n - f) * b - e; if (n) printf "%.0f\n", (u > 0 ? u : 0) }' ;;
	xfs) echo $((($(at_byte "$1" 8 8 big) - $(at_byte "$1" 144 8 big) - $(at_byte "$1" 96 4 big)) * $(at_byte "$1" 4 4 big))) ;; # less its journal
	btrfs) at_byte "$1" 65656 8 little ;;
	ntfs) ntfsinfo -m "$1" 2>/dev/null | tr -s '\t ' ' ' | awk '/Cluster Size:/ { s = $3 } /Volume Size in Clusters:/ { n = $5 }
		/Free Clusters:/ { if (n) printf "%.0f\n", (n - $3) * s }' ;;
	esac
}

expect_bytes() { # sets EXPECTED, what the image will take at least: a quarter of what file systems hold, for it is compressed
	# What cannot be taken is refused here, before hours of other partitions.
	EXPECTED=0
	while read -r number start size type <&3; do
		is_extended "$type" && continue
		part_node "$number" "$start" "$size"
		type=$(blkid -p -o value -s TYPE "$NODE" 2>/dev/null)
		check_closed "$NODE" "$type"
		used=$(number "$(used_bytes "$NODE" "$type")")
		[ "$used" -gt $((size * SECTOR)) ] || EXPECTED=$((EXPECTED + used / 4))
	done 3<"$WORK/parts"
}

plan_capture() { # a dry run: what each partition would be
	plan "disk $(describe "${DISK##*/}")"
	read_table
	while read -r number start size type <&3; do
		is_extended "$type" && continue
		part_node "$number" "$start" "$size"
		type=$(blkid -p -o value -s TYPE "$NODE" 2>/dev/null)
		check_closed "$NODE" "$type"
		plan_part="partition $number"
		[ "$number" != 0 ] || plan_part='the whole disk'
		plan "$plan_part: $((size * SECTOR)) bytes, ${type:-nothing that is known}"
	done 3<"$WORK/parts"
}

read_table() { # sets LABEL, writes $WORK/table and $WORK/parts: what the image is to be made of; refuses what cannot be one
	LABEL=$(blkid -p -o value -s PTTYPE "$DISK" 2>/dev/null)
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
	# What is kept on this device for itself is no part of the image.
	read -r cache_number _ <<-END
		$(cache_on "${DISK##*/}")
	END
	if [ -n "$cache_number" ]; then
		plan "partition $cache_number is the cache of this device; it is left out"
		grep -v "^[^ ]*[^0-9]$cache_number : start=" "$WORK/table" >"$WORK/table.new"
		mv "$WORK/table.new" "$WORK/table"
	fi
	table_parts <"$WORK/table" >"$WORK/parts"
	[ -s "$WORK/parts" ] || die "refused: the partition table of $DISK is empty"
}

capture_table() { # begins the manifest; uploads table and boot area
	printf 'pbserv-image 1\ndisk %s %s %s %s\n' "$(blockdev --getsize64 "$DISK")" "$SECTOR" "${LABEL:-none}" "$FIRMWARE" >"$WORK/manifest"
	[ -n "$LABEL" ] || return 0
	put_small table.sfdisk sfdisk "$WORK/table"
	boot_bytes=$(($(awk 'NR == 1 || $2 + 0 < m { m = $2 + 0 } END { printf "%.0f\n", m }' "$WORK/parts") * SECTOR))
	[ "$boot_bytes" -le "$BOOT_CAP" ] || boot_bytes=$BOOT_CAP
	put_stream boot.zst boot 0 dd if="$DISK" bs="$SECTOR" count=$((boot_bytes / SECTOR))
}

capture() {
	choose_disk 1
	! flag DRY_RUN || { plan_capture; say 'dry run: nothing is taken'; return 0; }
	: >"$WORK/facts"
	note_origin
	script_around before
	check_disk "${DISK##*/}" 1 # that script may have mounted it
	SECTOR=$(blockdev --getss "$DISK")
	stage partition "$DISK"
	read_table
	expect_bytes
	put_way
	capture_table
	awk -v s="$SECTOR" -v n="$(done_bytes)" '{ n += $3 * s } END { printf "%.0f\n", n }' "$WORK/parts" >"$WORK/total"
	while read -r number start size type <&3; do
		is_extended "$type" && continue # sfdisk makes it and its chain anew
		part_node "$number" "$start" "$size"
		capture_part "$number" $((size * SECTOR))
	done 3<"$WORK/parts"
	[ "$PROTOCOL" -lt 2 ] || cat "$WORK/facts" >>"$WORK/manifest"
	stage commit
	persist "$PART_TRIES" "$WORK/answer" --max-time 600 -H 'Content-Type: text/plain' --data-binary "@$WORK/manifest" \
		"$URL/client/v1/jobs/$JOB/commit" || die "the server did not take the image: $ERROR"
	grep -q '^COMMITTED' "$WORK/answer" || die "the server did not take the image: $(head -n 1 "$WORK/answer")"
	WRITTEN='the image is in the store, but '
	script_around after
}
