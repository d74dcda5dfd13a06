# Part of pbclient.sh: the capture of a disk.
# shellcheck shell=sh disable=SC2154,SC2034  # the variables of pbclient.sh

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
