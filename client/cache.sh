# Part of pbclient.sh: the cache partition, which keeps images on the device.
# shellcheck shell=sh disable=SC2154,SC2034  # the variables of pbclient.sh

# A partition named PBCACHE in a GPT, or whose file system has that label. ext4; images/NAME/VERSION/ITEM, and ITEM.part
# while it grows. It is reached by a loop device over its bytes, so the disk's table may change while it is mounted.

# ---------------------------------------------------------------- where it is

cache_on() { # DISK_NAME: "number start size" of its cache partition, in sectors
	cache_sector=$(blockdev --getss "/dev/$1" 2>/dev/null || echo 512)
	sfdisk -d "/dev/$1" 2>/dev/null | tee "$WORK/cache.table" | table_parts | while read -r n start size type; do
		is_extended "$type" && continue
		if [ "$(blkid -p -o value -s LABEL -O $((start * cache_sector)) -S $((size * cache_sector)) "/dev/$1" 2>/dev/null)" = PBCACHE ] ||
			grep "^[^ ]*[^0-9]$n : start=" "$WORK/cache.table" | grep -q 'name="PBCACHE"'; then
			echo "$n $start $size"
			break
		fi
	done
}

keep_cache() { # a cache partition behind the image's partitions stays: sets the limit, and writes its line to $WORK/kept
	: >"$WORK/kept"
	# shellcheck disable=SC2046
	set -- $(cache_on "${DISK##*/}")
	[ $# = 3 ] || return 0
	keep_not=$(why_not_kept "$2" "$3")
	if [ -n "$keep_not" ]; then give_up_cache "$1" "$keep_not"; return; fi
	[ "$limit" -le "$2" ] || limit=$2
	plan "the cache partition $1 stays"
	cache_label=$(blkid -p -o value -s PTTYPE "$DISK" 2>/dev/null)
	if [ "$cache_label" = "$LABEL" ]; then
		sfdisk -d "$DISK" | grep "^[^ ]*[^0-9]$1 : start=" | sed 's/^[^:]*: *//' >"$WORK/kept"
	elif [ "$LABEL" = gpt ]; then
		echo "start=$2, size=$3, type=L, name=\"PBCACHE\"" >"$WORK/kept"
	else
		echo "start=$2, size=$3, type=83" >"$WORK/kept"
	fi
}

why_not_kept() { # START SIZE of a cache partition: why the image's table has no place for it; nothing when it has
	if [ "$1" -lt "$(needed_end)" ]; then
		echo "it begins at byte $(($1 * SECTOR)), the image needs the disk up to byte $(($(needed_end) * SECTOR))"
	elif [ "$LABEL" = dos ] && [ "$(awk '$1 < 5' "$WORK/parts" | wc -l)" -ge 4 ]; then echo 'the image has four primary partitions'
	elif [ "$LABEL" = dos ] && { [ "$1" -gt 4294967295 ] || [ "$2" -gt 4294967295 ]; }; then
		echo "it lies where the image's table, of type dos, cannot reach"
	elif [ "$LABEL" = gpt ] && [ $(($1 + $2)) -gt "$limit" ]; then echo "it reaches into the place of the second table of a GPT"
	fi
}

lose_cache() { # [NUMBER]...: refuses work that writes over the cache partition (no number: over the whole disk) unless it is given up
	lose_numbers=" $* "
	# shellcheck disable=SC2046
	set -- $(cache_on "${DISK##*/}")
	[ $# = 3 ] || return 0
	case "$lose_numbers" in '  ' | *" $1 "*) give_up_cache "$1" 'the image would be written over it' ;; esac
}

give_up_cache() { # NUMBER WHY: refuses unless the work says that it may go
	[ "$(value CACHE)" = give-up ] || die "refused: the cache partition ($1) of $DISK cannot be kept: $2:" \
		"remove that partition first (img partition, in imaging maintenance)"
	plan "the cache partition $1 is given up"
	CACHE_LOST=yes
}

append_kept() { # its content is not touched
	sfdisk -q --append --no-reread --no-tell-kernel --force --wipe-partitions never "$DISK" \
		<"$WORK/kept" >"$WORK/sfdisk.err" 2>&1 || die "sfdisk failed with the cache partition: $(tail -n 1 "$WORK/sfdisk.err")"
}

# ---------------------------------------------------------------- what is in it

find_cache() { # sets CACHE_DISK, CACHE_START and CACHE_SIZE (bytes); false without a cache partition
	for CACHE_DISK in $(if [ -n "$ONLY_DISKS" ]; then for d in $ONLY_DISKS; do basename "$(dev_file "$d")"; done; else real_disks; fi); do
		# shellcheck disable=SC2046
		set -- $(cache_on "$CACHE_DISK")
		[ $# = 3 ] || continue
		CACHE_START=$(($2 * $(blockdev --getss "/dev/$CACHE_DISK"))) CACHE_SIZE=$(($3 * $(blockdev --getss "/dev/$CACHE_DISK")))
		return 0
	done
	return 1
}

cache_facts() { # "SIZE FREE" in bytes, for the question for work; nothing without a cache
	find_cache || return 0
	dumpe2fs -h "/dev/$CACHE_DISK?offset=$CACHE_START" 2>/dev/null | awk '/^Block count:/ { n = $3 } /^Free blocks:/ { f = $3 }
		/^Block size:/ { if (n) printf "%.0f %.0f\n", n * $3, f * $3 }'
}

open_cache() { # mounts it; false with ERROR
	ERROR='this device has no cache partition'
	find_cache || return 1
	ERROR='the cache partition cannot be reached'
	cache_node=$(losetup --show -f -o "$CACHE_START" --sizelimit "$CACHE_SIZE" "/dev/$CACHE_DISK") || return 1
	echo "$cache_node" >>"$WORK/loops"
	mkdir -p "$WORK/cache"
	if ! mount -t ext4 -o noatime "$cache_node" "$WORK/cache" 2>"$WORK/cache.err"; then
		ERROR="the cache partition cannot be mounted: $(last_line "$WORK/cache.err")"
		e2fsck -fp "$cache_node" >"$WORK/cache.err" 2>&1
		mount -t ext4 -o noatime "$cache_node" "$WORK/cache" 2>/dev/null || return 1
	fi
	mkdir -p "$WORK/cache/images" 2>/dev/null && [ -w "$WORK/cache/images" ]
}

cache_folder() { # sets CACHE_DIR, the folder of this job's image and version
	cache_image=$(value IMAGE) cache_version=$(value VERSION)
	case "$cache_image/$cache_version" in
	*/*/* | .* | */.* | /* | */) die "the server names an image '$cache_image' version '$cache_version': that is no name in a cache" ;;
	esac
	CACHE_DIR=$WORK/cache/images/$cache_image/$cache_version
}

fill_cache() { # ITEM_LIST: brings those items into the cache and verifies them; false with ERROR
	cache_folder
	[ "$(awk '$2 != "swap" { n += $4 } END { printf "%.0f\n", n }' "$1")" -lt "$(room 2)" ] ||
		{ ERROR="$(too_small "$1")"; return 1; }
	ERROR='the cache cannot be written'
	mkdir -p "$CACHE_DIR" && cp "$WORK/manifest" "$CACHE_DIR/manifest" 2>/dev/null && touch "$CACHE_DIR" || return 1
	: >"$WORK/missing"
	while read -r name kind _ stored sum _ <&3; do
		[ "$kind" != swap ] || continue
		stage cache "$name"
		have_item "$name" "$stored" "$sum" || echo "$name $stored $sum" >>"$WORK/missing"
	done 3<"$1"
	cache_need=$(awk '{ n += $2 } END { printf "%.0f\n", n }' "$WORK/missing")
	cache_total=$(cat "$WORK/total")
	[ "$ACTION" != cache ] || cache_total=0
	echo $((cache_total + cache_need)) >"$WORK/total"
	ERROR=''
	make_room "$cache_need" || { ERROR=${ERROR:-$(too_small "$1")}; return 1; }
	while read -r name stored sum <&3; do
		stage fill "$name"
		cache_item "$name" "$stored" "$sum" || return 1
	done 3<"$WORK/missing"
	sync
	say "cache: $(wc -l <"$WORK/missing") items fetched, $(($(wc -l <"$1") - $(wc -l <"$WORK/missing"))) were there"
}

room() { # FIELD of df (2: size, 4: free) in bytes, with a little left for the file system itself
	df -Pk "$WORK/cache" | awk -v f="$1" 'NR == 2 { n = ($f - 512) * 1024; printf "%.0f\n", (n > 0 ? n : 0) }'
}

too_small() { # ITEM_LIST
	echo "the cache is too small: the image needs $(awk '$2 != "swap" { n += $4 } END { printf "%.0f\n", n }' "$1") bytes," \
		"the cache has $(room 2), of them $(room 4) free"
}

have_item() { # ITEM STORED SHA256: whether it is there whole; the same bytes of another version count
	[ -f "$CACHE_DIR/$1" ] || link_item "$1" "$3"
	[ -f "$CACHE_DIR/$1" ] || return 1
	! same_item "$CACHE_DIR/$1" "$2" "$3" || return 0
	say "cache: $1 is damaged; it is fetched again"
	rm -f "$CACHE_DIR/$1"
	return 1
}

link_item() { # ITEM SHA256
	for link_manifest in "$WORK"/cache/images/*/*/manifest; do
		link_name=$(awk -v sum="$2" '$1 == "item" && $6 == sum { print $2; exit }' "$link_manifest" 2>/dev/null)
		case "$link_name" in '' | */*) continue ;; esac
		[ ! -f "${link_manifest%manifest}$link_name" ] || { ln "${link_manifest%manifest}$link_name" "$CACHE_DIR/$1" && return; }
	done
}

same_item() { # FILE STORED SHA256
	[ "$(stat -c %s "$1")" = "$2" ] || return 1
	sha256sum <"$1" >"$WORK/sum" &
	echo $! >"$WORK/pids"
	wait $!
	: >"$WORK/pids"
	! cancelled || die cancelled
	[ "$(cut -d ' ' -f 1 "$WORK/sum")" = "$3" ]
}

make_room() { # BYTES: the least recently used versions go, never the one in work; false, with ERROR when one cannot go
	# What has come already of the items that are missing takes no more room.
	make_begun=$(stat -c %s "$CACHE_DIR"/*.part 2>/dev/null | awk '{ n += $1 } END { printf "%.0f\n", n }')
	while [ $((make_begun + $(room 4))) -lt "$1" ]; do
		! cancelled || die cancelled
		make_old=''
		for make_folder in "$WORK"/cache/images/*/*; do
			[ -d "$make_folder" ] && [ "$make_folder" != "$CACHE_DIR" ] || continue
			# shellcheck disable=SC3013  # dash and busybox have it
			[ -n "$make_old" ] && [ ! "$make_folder" -ot "$make_old" ] || make_old=$make_folder
		done
		[ -n "$make_old" ] || return 1
		say "cache: ${make_old#"$WORK/cache/images/"} goes, to make room"
		rm -rf "$make_old" 2>"$WORK/rm.err" ||
			{ ERROR="the cache cannot be written: ${make_old#"$WORK/cache/images/"} cannot be removed: $(last_line "$WORK/rm.err")"; return 1; }
		rmdir "$(dirname "$make_old")" 2>/dev/null
	done
	return 0
}

cache_item() { # ITEM STORED SHA256: fetches it, going on where an earlier fetch stopped; false with ERROR
	cache_part=$CACHE_DIR/$1.part
	for cache_try in 1 2; do
		cache_at=$(stat -c %s "$cache_part" 2>/dev/null || echo 0)
		[ "$cache_at" -le "$2" ] || { rm -f "$cache_part"; cache_at=0; }
		fifos f1
		rm -f "$WORK/download.err"
		transport "$1" "$2" "$cache_at" >"$WORK/f1" &
		p1=$!
		tee -a "$cache_part" <"$WORK/f1" >/dev/null 2>"$WORK/tee.err" &
		p2=$!
		printf '%s\n' $p1 $p2 >>"$WORK/pids"
		echo "$p2 2 server" >"$WORK/meter"
		join download $p1 tee $p2 || { ERROR="item $1: $ERROR"; return 1; }
		if same_item "$cache_part" "$2" "$3"; then
			add_done "$2"
			mv "$cache_part" "$CACHE_DIR/$1"
			return
		fi
		ERROR="item $1: checksum mismatch: the bytes are not those of the image"
		rm -f "$cache_part"
		[ "$cache_at" != 0 ] || return 1
	done
}

# ---------------------------------------------------------------- the work

cache() { # "update cache": fill and verify, nothing else
	read_manifest
	open_cache || die "refused: $ERROR"
	awk '$2 != "sfdisk" && $2 != "boot" && $2 != "swap"' "$WORK/list" >"$WORK/wanted"
	plan "the cache on /dev/$CACHE_DISK gets $(wc -l <"$WORK/wanted") items, $(awk '{ n += $4 } END { printf "%.0f\n", n }' "$WORK/wanted") bytes"
	! flag DRY_RUN || { close_cache; return 0; }
	fill_cache "$WORK/wanted" || die "refused: $ERROR"
	close_cache || die 'the cache partition cannot be unmounted'
}

deploy() { restore; } # a restore by way of the cache: restore itself asks for the cache

planned_cache() { # whether the restore will take items from a cache, if that has them
	[ "$ACTION" = deploy ] || [ "$(value CACHE)" = use ] || return 1
	[ -z "${CACHE_LOST:-}" ] && find_cache
}

use_cache() { # of a restore whose plan stands: CACHED is the folder to take items from, empty for the server
	CACHED=''
	[ "$ACTION" = deploy ] || [ "$(value CACHE)" = use ] || return 0
	if [ -n "${CACHE_LOST:-}" ]; then say 'cache: it is given up; restoring directly'
	elif ! open_cache; then say "cache: $ERROR; restoring directly"
	elif [ "$ACTION" = deploy ]; then
		if fill_cache "$WORK/chosen"; then CACHED=$CACHE_DIR; else say "cache: $ERROR; restoring directly"; fi
	else
		cache_folder
		[ ! -d "$CACHE_DIR" ] || { CACHED=$CACHE_DIR && touch "$CACHED"; }
	fi
	[ -n "$CACHED" ] || close_cache
}

close_cache() {
	! grep -q " $WORK/cache " /proc/mounts || umount "$WORK/cache"
}
