# Part of pbclient.sh: the restore of an image to a disk.
# shellcheck shell=sh disable=SC2154,SC2034  # the variables of pbclient.sh

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
