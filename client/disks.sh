# Part of pbclient.sh: which disk is meant, what keeps it from being written, and its partitions as block devices.
# shellcheck shell=sh disable=SC2154,SC2034  # the variables of pbclient.sh

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

present() { # [NAME]: the end of a refusal: the disks among which the choice was (NAME first), or all when that was one alone
	# shellcheck disable=SC2046,SC2086
	set -- $(printf '%s\n' "$@" $pool $([ "$(echo $pool | wc -w)" -gt 1 ] || real_disks) | awk 'NF && !seen[$1]++')
	present_text=$(listed "$@")
	echo "present: ${present_text:-no disk}"
}

listed() { # NAMES...: what they are, as far as a message has room
	listed_more=$(($# - 8))
	# shellcheck disable=SC2046
	set -- $(printf '%s\n' "$@" | head -n 8)
	listed_text=$(describe "$@")
	[ "$listed_more" -le 0 ] || listed_text="$listed_text; and $listed_more more"
	echo "$listed_text"
}

matching() { # SELECTOR, disk names on stdin: those that the job's TARGET_DISK means
	wanted=$(echo "${1#*:}" | squeezed)
	while read -r match_name; do
		case "$1" in
		serial:*) match=$(property "$match_name" SERIAL) ;;
		model:*) match=$(property "$match_name" MODEL) ;;
		size:*) match=$(disk_size "$match_name") ;;
		by-id:*) match=/dev/$match_name wanted=$(dev_file "/dev/disk/by-id/${1#by-id:}") ;;
		*) match=/dev/$match_name wanted=$(dev_file "$1") ;;
		esac
		[ -z "$match" ] || [ "$match" != "$wanted" ] || echo "$match_name"
	done
}

choose_disk() { # NEEDED_BYTES: sets DISK and SECTOR, or refuses; nothing has been written yet
	roots=$(root_disks)
	pool=''
	for pool_name in $(if [ -n "$ONLY_DISKS" ]; then for d in $ONLY_DISKS; do basename "$(dev_file "$d")"; done; else real_disks; fi); do
		[ -d "/sys/block/$pool_name" ] || { pool='' && die "refused: /dev/$pool_name is not a whole disk; $(present)"; }
		case " $(echo "$roots" | tr '\n' ' ') " in *" $pool_name "*) ;; *) pool="$pool $pool_name" ;; esac
	done
	only=''
	# shellcheck disable=SC2086
	[ "$(echo $ONLY_DISKS | wc -w)" != 1 ] || only=${ONLY_DISKS# }
	[ -z "$only" ] || [ -n "$pool" ] || die "refused: $only holds the running system; $(present)"
	named=yes
	if [ -n "$TARGET_DISK" ]; then
		case "$TARGET_DISK" in /dev/loop*) [ -n "$ONLY_DISKS" ] || pool="$pool $(basename "$TARGET_DISK")" ;; esac
		# shellcheck disable=SC2086
		chosen=$(printf '%s\n' $pool | matching "$TARGET_DISK")
		[ -n "$chosen" ] || [ -z "$only" ] || die "refused: the job names $TARGET_DISK, which is not the disk given here, $only; $(present)"
		[ -n "$chosen" ] || die "refused: no disk is $TARGET_DISK; $(present)"
	elif [ -n "$only" ]; then
		chosen=$pool
	else
		named=''
		chosen=''
		for pool_name in $pool; do
			[ -n "$(outer "$pool_name")" ] || [ "$(disk_size "$pool_name")" -lt "$1" ] || chosen="$chosen $pool_name"
		done
		[ -n "$chosen" ] || die "refused: no internal disk has the $1 bytes needed; $(present)"
	fi
	# shellcheck disable=SC2086
	[ "$(echo $chosen | wc -w)" = 1 ] || die "refused: several disks could be meant: $(listed $chosen)"
	chosen=$(echo "$chosen" | tr -d ' ')
	check_disk "$chosen" "$1"
	DISK=/dev/$chosen
	SECTOR=$(blockdev --getss "$DISK")
	say "disk: $(describe "$chosen")"
}

check_disk() { # NAME NEEDED_BYTES
	[ -b "/dev/$1" ] || die "refused: there is no disk /dev/$1; $(present)"
	busy=$(active_use "$1" | head -n 3 | tr '\n' ';')
	[ -z "$busy" ] || die "refused: the disk is in use: $busy $(present "$1")"
	[ -n "$named" ] || busy=$(members "$1" | head -n 3 | tr '\n' ';')
	[ -z "$busy" ] || die "refused: the disk holds RAID or LVM members and the job does not name it: $busy $(present "$1")"
	[ "$ACTION" = capture ] || [ "$(cat "/sys/block/$1/ro")" = 0 ] || die "refused: /dev/$1 is read-only; $(present "$1")"
	[ "$(disk_size "$1")" -ge "$2" ] ||
		die "refused: the disk is too small: the image needs $2 bytes, /dev/$1 has $(disk_size "$1"); $(present "$1")"
}

# ---------------------------------------------------------------- partitions

table_parts() { # sfdisk dump on stdin: "number start size type" per partition, in sectors
	awk '/ : start=/ { n = $1; sub(/^.*[^0-9]/, "", n)
		split("start size type", key, " ")
		l = $0; sub(/, *name=".*/, "", l) # what the owner wrote; it stands behind all of these
		for (i = 1; i <= 3; i++) { v = l; sub(".*" key[i] "= *", "", v); sub(/[, ].*/, "", v); val[i] = v }
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
