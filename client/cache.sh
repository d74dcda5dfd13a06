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
			grep "[^0-9]$n : start=" "$WORK/cache.table" | grep -q 'name="PBCACHE"'; then
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
	if [ "$2" -lt "$(needed_end)" ]; then
		[ "$(value CACHE)" = give-up ] || die "refused: the cache partition ($1) of $DISK begins at byte $(($2 * SECTOR))," \
			"the image needs the disk up to byte $(($(needed_end) * SECTOR)): remove the partition (img partition) or order" \
			"the work so that the cache is given up"
		plan "the cache partition $1 is given up"
		return
	fi
	[ "$LABEL" != dos ] || [ "$(awk '$1 < 5' "$WORK/parts" | wc -l)" -lt 4 ] ||
		die "refused: the image has four primary partitions, so the cache partition ($1) of $DISK cannot be kept"
	limit=$2
	plan "the cache partition $1 stays"
	cache_label=$(blkid -p -o value -s PTTYPE "$DISK" 2>/dev/null)
	if [ "$cache_label" = "$LABEL" ]; then
		sfdisk -d "$DISK" | grep "[^0-9]$1 : start=" | sed 's/^[^:]*: *//' >"$WORK/kept"
	elif [ "$LABEL" = gpt ]; then
		echo "start=$2, size=$3, type=L, name=\"PBCACHE\"" >"$WORK/kept"
	else
		echo "start=$2, size=$3, type=83" >"$WORK/kept"
	fi
}

append_kept() { # its content is not touched
	sfdisk -q --append --no-reread --no-tell-kernel --force --wipe-partitions never "$DISK" \
		<"$WORK/kept" >"$WORK/sfdisk.err" 2>&1 || die "sfdisk failed with the cache partition: $(tail -n 1 "$WORK/sfdisk.err")"
}
