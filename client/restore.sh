# Part of pbclient.sh: the restore of an image to a disk.
# shellcheck shell=sh disable=SC2154,SC2034  # the variables of pbclient.sh

read_manifest() { # fetches it and checks that this script understands every line
	stage manifest
	persist "$PART_TRIES" "$WORK/manifest" --max-time 60 "$URL/client/v1/jobs/$JOB/manifest" || die "no manifest: $ERROR"
	[ "$(head -n 1 "$WORK/manifest")" = 'pbserv-image 1' ] || die 'the manifest is of a kind this client does not know'
	read -r _ IMAGE_SIZE IMAGE_SECTOR LABEL IMAGE_FIRMWARE <<-END
		$(grep '^disk ' "$WORK/manifest")
	END
	[ -n "${IMAGE_FIRMWARE:-}" ] || die 'the manifest has no disk line'
	sed -n 's/^item //p' "$WORK/manifest" >"$WORK/list"
	sed -n 's/^fact //p' "$WORK/manifest" >"$WORK/facts"
	while read -r name kind _ _ sum _; do
		case "$name/$kind" in */*/* | .*/*) die "the manifest names an item $name of kind $kind" ;; esac
		case "$kind" in
		sfdisk | boot | raw | swap) ;;
		partclone.*) command -v partclone.restore >/dev/null || die 'partclone is not installed here' ;;
		ntfsclone) command -v ntfsclone >/dev/null || die 'ntfsclone is not installed here' ;;
		disk) die "item $name is of kind $kind, which the client cannot write: convert the image on the server (pbserv image convert)" ;;
		partimage | fsarchiver) check_foreign "$name" "$kind" ;;
		file | tree | kernel | initrd) die "item $name is of kind $kind: this image cannot be restored to a disk" ;;
		*) die "item $name is of unknown kind $kind" ;;
		esac
		[ "${#sum}" = 64 ] || die "item $name has no checksum"
		unpacker "$name" "$kind"
	done <"$WORK/list"
}

unpacker() { # NAME KIND: sets UNPACK, the command that unpacks this item
	UNPACK='cat'
	case "$(fact "$1" compressor)/$2" in
	none/* | /sfdisk | /swap) return 0 ;;
	/* | zstd/*) UNPACK=zstd ;;
	gzip/* | bzip2/* | xz/* | lzop/* | lz4/*) UNPACK=$(fact "$1" compressor) ;;
	*) die "item $1 is compressed by $(fact "$1" compressor), which is unknown here" ;;
	esac
	command -v "$UNPACK" >/dev/null || die "item $1 needs $UNPACK, which is not installed here"
	UNPACK="$UNPACK -dcq"
}

prepare_restore() { # downloads every small item and checks the image before a disk is chosen
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
		boot)
			unpacker "$name" "$kind"
			$UNPACK <"$WORK/items/$name" >"$WORK/boot" || die "item $name cannot be unpacked"
			;;
		esac
	done <"$WORK/list"
	[ "$LABEL" = none ] || [ -s "$WORK/parts" ] || die 'the image has no partition table'
	while read -r name kind number _; do
		case "$kind" in sfdisk | boot) continue ;; esac
		[ "$number" = 0 ] || [ "$LABEL" = none ] || grep -q "^$number " "$WORK/parts" ||
			die "item $name is for partition $number, which the table lacks"
		[ "$number" != 0 ] || [ "$LABEL" = none ] || die "item $name is for no partition"
	done <"$WORK/list"
}

plan_restore() { # everything that can be known before the disk is touched
	choose_items
	[ "$(value VERIFY)" != read ] || check_verifiable
	[ -n "$PARTIAL" ] || find_last
	choose_disk "$(needed_bytes)"
	plan_disk
}

plan_disk() { # what becomes of the disk as it is now
	: >"$WORK/plan"
	CACHE_LOST=''
	[ "$SECTOR" = "$IMAGE_SECTOR" ] ||
		die "refused: $DISK has sectors of $SECTOR bytes, the image was made on sectors of $IMAGE_SECTOR bytes; $(present "${DISK##*/}")"
	[ "$IMAGE_FIRMWARE" = "$FIRMWARE" ] || say "note: the image was captured on $IMAGE_FIRMWARE, this machine started with $FIRMWARE"
	plan "disk $(describe "${DISK##*/}")"
	if [ -n "$PARTIAL" ]; then plan_partitions
	elif [ "$LABEL" = none ]; then
		lose_cache
		echo "0 0 $(($(disk_size "${DISK##*/}") / SECTOR)) whole" >"$WORK/layout"
	else
		plan_table
		plan "a new partition table ($LABEL) of $(wc -l <"$WORK/layout") partitions; everything else on the disk is lost"
	fi
	while read -r name kind number stored _; do
		plan "$name ($kind, $stored bytes) to partition $number"
	done <"$WORK/chosen"
	plan_addons
	planned_cache || check_archives
	[ "$(value VERIFY)" != read ] || plan 'what was written is read back'
	[ "$(value EFI_ENTRY)" = 0 ] || plan_efi_entry
}

plan_again() { # the script before the writing may have mounted the disk, or made it another table: nothing that was known holds
	flag BEFORE || return 0
	stage check "$DISK"
	check_disk "${DISK##*/}" "$(needed_bytes)"
	SECTOR=$(blockdev --getss "$DISK")
	plan_disk
}

write_table() {
	stage partition "$DISK"
	[ "$LABEL" != none ] && [ -z "$PARTIAL" ] || return 0
	sfdisk -q --no-reread --no-tell-kernel --force --wipe always --wipe-partitions always "$DISK" \
		<"$WORK/table.new" >"$WORK/sfdisk.err" 2>&1 || die "sfdisk failed: $(tail -n 1 "$WORK/sfdisk.err")"
	if [ "$LABEL" = gpt ]; then
		sgdisk -e "$DISK" >"$WORK/sgdisk.err" 2>&1 || die "sgdisk failed: $(tail -n 1 "$WORK/sgdisk.err")"
	fi
	[ ! -s "$WORK/kept" ] || append_kept
	[ ! -s "$WORK/boot" ] || write_boot_area
	reread_table
}

boot_area() { # sets code, the bytes of boot code, and from, the sector from which the rest of the boot area is written
	code=446 from=1
	[ "$LABEL" != gpt ] || { code=440 from=$(sed -n 's/^first-lba: *//p' "$WORK/table"); }
	from=${from:-34}
}

write_boot_area() { # the first sector's table and, for GPT, the tables behind it are the new ones and stay
	boot_area
	dd if="$WORK/boot" of="$DISK" bs=1 count="$code" conv=notrunc,fsync 2>"$WORK/dd.err" ||
		die "writing the boot code failed: $(dd_error)"
	[ "$(wc -c <"$WORK/boot")" -gt $((from * SECTOR)) ] || return 0
	dd if="$WORK/boot" of="$DISK" bs="$SECTOR" skip="$from" seek="$from" conv=notrunc,fsync 2>"$WORK/dd.err" ||
		die "writing the boot area failed: $(dd_error)"
}

dd_error() { # why dd failed; behind that it counts
	dd_why=$(grep '^dd: ' "$WORK/dd.err" | tail -n 1)
	echo "${dd_why:-$(tail -n 1 "$WORK/dd.err")}"
}

target_node() { # NUMBER: sets NODE, that partition of the disk
	part_node "$1" "$(field layout "$1" 2)" "$(field layout "$1" 3)"
	grep -qx "$NODE" "$WORK/nodes" 2>/dev/null || echo "$NODE" >>"$WORK/nodes"
}

restore_item() { # NAME KIND NUMBER STORED SHA256
	target_node "$3"
	stage restore "$1"
	case "$2" in
	partclone.*) stream_in "$1" "$2" "$4" "$5" partclone.restore -q -f 1 -L "$WORK/partclone.log" -s - -o "$NODE" ;;
	ntfsclone) stream_in "$1" "$2" "$4" "$5" ntfsclone --restore-image --overwrite "$NODE" - ;;
	partimage) stream_in "$1" "$2" "$4" "$5" write_partimage ;;
	fsarchiver) restore_archive "$1" "$2" "$4" "$5" ;;
	raw) stream_in "$1" "$2" "$4" "$5" dd of="$NODE" bs=1048576 iflag=fullblock conv=fsync,notrunc ;;
	swap)
		# Escaped, as blkid does for its export: a space is "\ ".
		swap_uuid=$(sed -n 's/^UUID=//p' "$WORK/items/$1") swap_label=$(sed -n 's/^LABEL=//p' "$WORK/items/$1" | sed 's/\\\(.\)/\1/g')
		mkswap ${swap_uuid:+-U "$swap_uuid"} ${swap_label:+-L "$swap_label"} "$NODE" >"$WORK/mkswap.err" 2>&1 ||
			die "mkswap failed: $(tail -n 1 "$WORK/mkswap.err")"
		;;
	esac
}

settle() { # what was written is on the disk itself
	sync
	# That one says nothing of what failed; each device tells its own failures, once.
	for settled in $(cat "$WORK/nodes") "$DISK"; do
		[ -b "$settled" ] || continue # a script after may have made the disk another table
		sync "$settled" 2>"$WORK/sync.err" || die "${WRITTEN}not all that was written to $settled is on the disk: $(last_line "$WORK/sync.err")"
	done
	blockdev --flushbufs "$DISK" || die "flushing $DISK failed"
	! cancelled || die cancelled
}

restore() {
	read_manifest
	prepare_restore
	plan_restore
	! flag DRY_RUN || { say 'dry run: nothing is written'; return 0; }
	script_around before
	plan_again
	use_cache
	check_archives
	write_table
	# The loop bodies must not read the list as their own input.
	while read -r name kind number stored sum _ <&3; do
		restore_item "$name" "$kind" "$number" "$stored" "$sum"
	done 3<"$WORK/chosen"
	stage finish
	CACHED=''
	close_cache || die 'the cache partition cannot be unmounted'
	settle
	VERIFIED=stream
	[ "$(value VERIFY)" != read ] || read_back
	set_starts
	! flag RESIZE || grow_file_systems
	WRITTEN='the image is on the disk, but '
	finish_system
	write_efi_entry
	script_around after
	stage finish
	settle
}
