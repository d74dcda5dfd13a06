# Part of pbclient.sh: what follows when the items of an image are on the disk: reading back, growing, the firmware's entry.
# shellcheck shell=sh disable=SC2154,SC2034  # the variables of pbclient.sh

# ---------------------------------------------------------------- reading back

check_verifiable() { # before anything is written: VERIFY=read needs a digest of the content for every item
	while read -r name kind _; do
		[ "$kind" != swap ] || continue
		verify_sum=$(fact "$name" body_sha256)
		[ "${#verify_sum}" = 64 ] || die "refused: item $name is not verifiable: the image has no body_sha256 of it"
		[ "$kind" != raw ] || continue
		[ "$(number "$(fact "$name" head_bytes)")" != 0 ] ||
			die "refused: item $name is not verifiable: the image has no head_bytes of it"
		case "$kind" in partclone.*) ;; *) die "refused: item $name is not verifiable: it was made by $kind" ;; esac
		command -v "$kind" >/dev/null || die "refused: item $name is not verifiable: $kind is not installed here"
	done <"$WORK/chosen"
}

read_back() {
	echo 3 2>/dev/null >/proc/sys/vm/drop_caches
	while read -r name kind number _ _ plain _ <&3; do
		[ "$kind" != swap ] || continue
		target_node "$number"
		stage verify "$name"
		blockdev --flushbufs "$NODE"
		read_back_item "$name" "$kind" "$plain"
	done 3<"$WORK/chosen"
	read_back_boot
	VERIFIED='read'
}

read_back_boot() { # what write_boot_area wrote, and nothing of the tables
	[ -z "$PARTIAL" ] && [ "$LABEL" != none ] && [ -s "$WORK/boot" ] || return 0
	stage verify 'boot area'
	blockdev --flushbufs "$DISK"
	boot_area
	# Never into the first partition, whose item came later.
	boot_end=$(($(awk 'NR == 1 || $2 + 0 < m { m = $2 + 0 } END { printf "%.0f\n", m }' "$WORK/layout") * SECTOR))
	boot_have=$(wc -c <"$WORK/boot")
	[ "$boot_have" -ge "$boot_end" ] || boot_end=$boot_have
	[ "$(boot_sum "$DISK")" = "$(boot_sum "$WORK/boot")" ] ||
		die "boot area: the disk does not hold what was written to it: the first $boot_end bytes of $DISK differ from the image" \
			"(is the disk failing?)"
}

boot_sum() { # FILE: the digest of its boot code and boot area
	{
		head -c "$boot_end" "$1" | head -c "$code"
		head -c "$boot_end" "$1" | tail -c +$((from * SECTOR + 1))
	} 2>/dev/null | sha256sum
}

read_back_item() { # NAME KIND PLAIN_BYTES: the device's content against the manifest
	fifos f1 f2
	if [ "$2" = raw ]; then
		head -c "$3" "$NODE" >"$WORK/f2" 2>"$WORK/source.err" &
		p1=$!
		p2=''
	else
		"$2" -c -a 0 -q -f 1 -L "$WORK/partclone.log" -s "$NODE" -o - >"$WORK/f1" 2>"$WORK/source.err" </dev/null &
		p1=$!
		tail -c +$(($(fact "$1" head_bytes) + 1)) <"$WORK/f1" >"$WORK/f2" 2>"$WORK/tail.err" &
		p2=$!
	fi
	sha256sum <"$WORK/f2" >"$WORK/sum" 2>"$WORK/sha256sum.err" &
	p3=$!
	printf '%s\n' $p1 $p2 $p3 >>"$WORK/pids"
	join source $p1 ${p2:+tail $p2} sha256sum $p3 || die "item $1 cannot be read back: $ERROR"
	[ "$(cut -d ' ' -f 1 "$WORK/sum")" = "$(fact "$1" body_sha256)" ] ||
		die "item $1: the disk does not hold what was written to it: $NODE differs from the image (is the disk failing?)"
}

# ---------------------------------------------------------------- the start of a partition

set_starts() { # what a BIOS boots from NTFS or FAT finds its disk's sectors by the start that the file system was told
	while read -r _ kind number _ _ _ origin <&3; do
		start=$(number "$(field layout "$number" 2)")
		[ "$number" != 0 ] && [ "$start" -le 4294967295 ] && [ "$start" != "$(field parts "$origin" 2)" ] || continue
		target_node "$number"
		case "$(blkid -p -o value -s TYPE "$NODE" 2>/dev/null)" in
		ntfs) # its copy is in the last sector
			set_start "$NODE" 0
			set_start "$NODE" $(($(at_byte "$NODE" 40 8 little) * $(at_byte "$NODE" 11 2 little)))
			;;
		vfat)
			set_start "$NODE" 0
			[ "$(at_byte "$NODE" 22 2 little)" != 0 ] || # FAT32
				set_start "$NODE" $(($(at_byte "$NODE" 50 2 little) * $(at_byte "$NODE" 11 2 little)))
			;;
		*) continue ;;
		esac
		say "partition $number: its file system now knows that it starts at sector $start"
	done 3<"$WORK/chosen"
}

set_start() { # NODE BYTE: the number of sectors before the file system, in the boot sector there
	[ "$(at_byte "$1" $(($2 + 510)) 2 little)" = 43605 ] || return 0
	# shellcheck disable=SC2059  # the format is the bytes
	printf "$(printf '\\%03o' $((start & 255)) $((start >> 8 & 255)) $((start >> 16 & 255)) $((start >> 24 & 255)))" |
		dd of="$1" bs=1 seek=$(($2 + 28)) conv=notrunc,fsync 2>"$WORK/dd.err" ||
		die "the image is on the disk, but the start of partition $number could not be written into it: $(last_line "$WORK/dd.err")"
}

# ---------------------------------------------------------------- growing

grow_file_systems() {
	if [ -n "$PARTIAL" ]; then
		while read -r name kind number _ <&3; do
			! grows "$kind" || grow "$number" "$kind"
		done 3<"$WORK/chosen"
	elif [ -n "$LAST" ]; then grow "$LAST" "$LAST_KIND"; fi
}

grow() { # NUMBER KIND: the file system takes its whole partition
	target_node "$1"
	stage resize "p$1"
	case "$2" in
	partclone.ext*)
		e2fsck -fp "$NODE" >"$WORK/grow.err" 2>&1
		[ $? -le 1 ] || grow_failed "$1" e2fsck
		resize2fs "$NODE" >"$WORK/grow.err" 2>&1 || grow_failed "$1" resize2fs
		;;
	partclone.xfs) grow_mounted "$1" xfs xfs_growfs ;;
	partclone.btrfs) grow_mounted "$1" btrfs btrfs filesystem resize max ;;
	partclone.ntfs)
		ntfsresize --check "$NODE" >"$WORK/grow.err" 2>&1 </dev/null || grow_failed "$1" 'ntfsresize --check'
		ntfsresize --force --force --no-progress-bar "$NODE" >"$WORK/grow.err" 2>&1 </dev/null || grow_failed "$1" ntfsresize
		;;
	esac
}

grow_mounted() { # NUMBER TYPE COMMAND...: those which grow while they are mounted
	grow_number=$1 grow_type=$2
	shift 2
	mkdir -p "$WORK/mnt"
	mount -t "$grow_type" "$NODE" "$WORK/mnt" 2>"$WORK/grow.err" || grow_failed "$grow_number" mount
	"$@" "$WORK/mnt" >"$WORK/grow.err" 2>&1
	grow_status=$?
	umount "$WORK/mnt" || die "partition $grow_number: its file system cannot be unmounted"
	[ "$grow_status" = 0 ] || grow_failed "$grow_number" "$1"
}

grow_failed() { # NUMBER COMMAND
	die "the image is on the disk, but the file system of partition $1 could not be resized: $2: $(last_line "$WORK/grow.err")"
}

# ---------------------------------------------------------------- the firmware's entry

is_esp() { # TYPE as sfdisk names it
	case "$1" in ef | [cC]12[aA]7328-*) return 0 ;; *) return 1 ;; esac
}

plan_efi_entry() { # sets ESP, the number of the EFI system partition that an entry is to name
	ESP=''
	[ "$FIRMWARE" = uefi ] || return 0
	while read -r n _ _ type; do
		! is_esp "$type" || ! awk -v n="$n" '$3 == n' "$WORK/chosen" | grep -q . || ESP=${ESP:-$n}
	done <"$WORK/layout"
	[ -z "$ESP" ] || plan "an entry of the firmware for the boot loader on partition $ESP, behind the one that this boot came from"
}

efi_loaders() { # DIRECTORY of the mounted partition: "path label" of each boot loader, the best first
	for efi_path in "$1"/[eE][fF][iI]/*/*.efi "$1"/[eE][fF][iI]/*/*.EFI "$1"/[eE][fF][iI]/[mM]icrosoft/[bB]oot/*.efi; do
		[ -f "$efi_path" ] || continue
		efi_name=$(echo "${efi_path#"$1"}" | tr '[:upper:]' '[:lower:]')
		case "$efi_name" in
		*/microsoft/boot/bootmgfw.efi) efi_rank='1 Windows' ;;
		*/shimx64.efi) efi_rank="2 $(basename "$(dirname "$efi_path")")" ;;
		*/grubx64.efi | */systemd-bootx64.efi) efi_rank="3 $(basename "$(dirname "$efi_path")")" ;;
		*/boot/bootx64.efi) efi_rank='4 disk' ;;
		*) continue ;;
		esac
		printf '%s\t%s\n' "$efi_rank" "$(echo "${efi_path#"$1"}" | tr / '\\')"
	done | sort -u
}

write_efi_entry() { # failing is no failure of the restore: the firmware also finds EFI/BOOT/BOOTX64.EFI by itself
	[ -n "${ESP:-}" ] || return 0
	stage efi "p$ESP"
	efi_entry || say "note: no entry was made in the firmware: $ERROR"
}

efi_entry() { # sets ERROR when it fails
	ERROR='efibootmgr is not installed here'
	command -v efibootmgr >/dev/null || return 1
	[ -d /sys/firmware/efi/efivars ] && { [ -n "$(ls /sys/firmware/efi/efivars)" ] ||
		mount -t efivarfs efivarfs /sys/firmware/efi/efivars 2>/dev/null; }
	target_node "$ESP"
	mkdir -p "$WORK/mnt"
	ERROR="partition $ESP cannot be mounted"
	mount -t vfat -o ro "$NODE" "$WORK/mnt" 2>/dev/null || return 1
	efi_loaders "$WORK/mnt" | head -n 1 >"$WORK/loader"
	umount "$WORK/mnt"
	ERROR="there is no boot loader on partition $ESP"
	[ -s "$WORK/loader" ] || return 1
	efi_label="pbserv $(sed 's/^. //; s/\t.*//' "$WORK/loader")" efi_file=$(sed 's/.*\t//' "$WORK/loader")
	efibootmgr >"$WORK/efi" 2>"$WORK/efi.err" || { ERROR=$(last_line "$WORK/efi.err"); return 1; }
	# Entries of earlier restores go: they name partitions that are no more.
	for efi_number in $(sed -n 's/^Boot\([0-9A-F]\{4\}\)\** pbserv .*/\1/p' "$WORK/efi"); do
		efibootmgr -q -b "$efi_number" -B 2>/dev/null
	done
	efibootmgr -q -C -d "$DISK" -p "$ESP" -L "$efi_label" -l "$efi_file" 2>"$WORK/efi.err" ||
		{ ERROR=$(last_line "$WORK/efi.err"); return 1; }
	efi_order || { ERROR="its place in the boot order could not be set: $(last_line "$WORK/efi.err")"; return 1; }
	say "entry of the firmware: $efi_label, $(sed 's/.*\t//' "$WORK/loader" | tr '\\' /)"
}

efi_order() { # the new entry behind the one that this boot came from: the network stays first where it was first
	efibootmgr >"$WORK/efi" 2>"$WORK/efi.err" || return 1
	efi_new=$(sed -n 's/^Boot\([0-9A-F]\{4\}\)\** pbserv .*/\1/p' "$WORK/efi" | head -n 1)
	efi_now=$(sed -n 's/^BootCurrent: //p' "$WORK/efi")
	efi_list=$(sed -n 's/^BootOrder: //p' "$WORK/efi" | tr ',' '\n' | grep -v "^$efi_new\$" |
		awk -v now="$efi_now" -v new="$efi_new" '{ print } $0 == now { print new; s = 1 } END { if (!s) print new }' | tr '\n' ',')
	efibootmgr -q -o "${efi_list%,}" 2>"$WORK/efi.err"
}
