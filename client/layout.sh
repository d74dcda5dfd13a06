# Part of pbclient.sh: where the items of an image go: room needed, the last partition's growth, the cache partition kept.
# shellcheck shell=sh disable=SC2154,SC2034  # the variables of pbclient.sh

# Of a restore, in $WORK: parts (the image's table: number start size type), layout (the same as it will be on the disk),
# chosen (items that are written: name, kind, number on the disk, stored bytes, sha256, plain bytes, number in the image).

flag() { [ "$(value "$1")" = 1 ]; }
fact() { awk -v i="$1" -v k="$2" '$1 == i && $2 == k { print $3; exit }' "$WORK/$FACTS"; }
number() { case "$1" in '' | *[!0-9]*) echo 0 ;; *) echo "$1" ;; esac; }
grows() { case "$1" in partclone.ext[234] | partclone.extfs | partclone.xfs | partclone.btrfs | partclone.ntfs) return 0 ;; *) return 1 ;; esac; }
field() { awk -v n="$2" -v f="$3" '$1 == n { print $f; exit }' "$WORK/$1"; } # FILE NUMBER FIELD

grow_tools() { # KIND: refuses when this machine cannot let that file system grow
	case "$1" in
	partclone.ext*) grow_tool='e2fsck resize2fs' ;;
	partclone.xfs) grow_tool='xfs_growfs' ;;
	partclone.btrfs) grow_tool='btrfs' ;;
	partclone.ntfs) grow_tool='ntfsresize' ;;
	*) die "refused: resize: ${1#partclone.} cannot be resized: order the work without it" ;;
	esac
	for grow_name in $grow_tool; do
		command -v "$grow_name" >/dev/null || die "refused: resize: $grow_name is not installed here"
	done
}

choose_items() { # writes $WORK/chosen; PARTIAL: single partitions, and the table of the disk stays
	PARTIAL='' only=$(value PARTITIONS | tr ',' ' ') into=$(value TARGET_PARTITION)
	[ "$into" != 0 ] || into=''
	case "$only$into" in *[!0-9\ ]*) die "refused: '$only$into' are no numbers of partitions" ;; esac
	awk '$2 != "sfdisk" && $2 != "boot" { print $1, $2, $3, $4, $5, $6, $3 }' "$WORK/list" >"$WORK/chosen"
	present=$(awk '{ printf "%s ", $3 }' "$WORK/chosen")
	[ -n "$present" ] || die 'refused: the image has no partitions'
	if [ -n "$only" ]; then
		PARTIAL=yes
		for n in $only; do
			case " $present" in *" $n "*) ;; *) die "refused: the image has no partition $n; it has: $present" ;; esac
		done
		awk -v only=" $only " 'index(only, " " $3 " ")' "$WORK/chosen" >"$WORK/chosen.new" && mv "$WORK/chosen.new" "$WORK/chosen"
	fi
	if [ -n "$into" ]; then
		PARTIAL=yes
		# As the server counts: swap is no system.
		[ -n "$only" ] || { awk '$2 != "swap"' "$WORK/chosen" >"$WORK/chosen.new" && mv "$WORK/chosen.new" "$WORK/chosen"; }
		[ "$(wc -l <"$WORK/chosen")" = 1 ] ||
			die "refused: one partition goes into partition $into, the image has several: $present; say which"
		awk -v n="$into" '{ $3 = n; print }' "$WORK/chosen" >"$WORK/chosen.new" && mv "$WORK/chosen.new" "$WORK/chosen"
	elif [ "$LABEL" = none ] && { [ "$PARTIAL" ] || [ "$IMAGE_SIZE" = 0 ]; }; then
		die 'refused: the image is that of a partition: the work must say which partition of the disk it goes into'
	fi
	awk '$2 != "swap" { n += $4 } END { printf "%.0f\n", n }' "$WORK/chosen" >"$WORK/total"
}

item_bytes() { # NAME KIND PLAIN_BYTES IMAGE_NUMBER: the room that an item needs; 0 when it is not known
	item_need=0
	case "$2" in
	partclone.*)
		for item_value in "$(fact "$1" fs_bytes)" "$(fact "$1" device_bytes)"; do
			[ "$item_need" != 0 ] || item_need=$(number "$item_value")
		done
		[ "$item_need" != 0 ] || item_need=$(($(number "$(field parts "$4" 3)") * IMAGE_SECTOR))
		;;
	raw) item_need=$3 ;;
	partimage) item_need=$(number "$(fact "$1" device_bytes)") ;;
	# Files, not blocks: the partition may be smaller than the one they come from.
	fsarchiver) item_need=$(number "$(fact "$1" used_bytes)") item_need=$((item_need + item_need / 8)) ;;
	esac
	echo "$item_need"
}

# ---------------------------------------------------------------- the whole disk

find_last() { # with RESIZE: LAST, the partition that grows, with its item's name and kind; BEHIND, swaps that move along
	LAST='' BEHIND='' LAST_NAME='' LAST_KIND='' LAST_MIN=0 BEHIND_SIZE=0
	flag RESIZE || return 0
	if [ "$LABEL" = none ]; then
		read -r LAST_NAME LAST_KIND LAST _ <"$WORK/chosen"
		grow_tools "$LAST_KIND"
		return
	fi
	awk '{ print $2 + $3, $1, $4 }' "$WORK/parts" | sort -rn >"$WORK/ends"
	while read -r _ n type <&4; do
		is_extended "$type" && continue
		LAST_KIND=$(field_of chosen "$n" 2)
		[ "$LAST_KIND" = swap ] || { LAST=$n; break; }
		BEHIND="$n $BEHIND" BEHIND_SIZE=$((BEHIND_SIZE + $(field parts "$n" 3)))
	done 4<"$WORK/ends"
	[ -n "$LAST" ] || die 'refused: resize: the image holds nothing but swap'
	for n in $BEHIND; do
		! is_logical "$n" || die "refused: resize: partition $n (swap) lies behind partition $LAST inside an extended one" \
			"and cannot be moved: order the work without it"
	done
	LAST_NAME=$(field_of chosen "$LAST" 1)
	grow_tools "$LAST_KIND"
	LAST_MIN=$(field parts "$LAST" 3)
	last_fs=$(number "$(fact "$LAST_NAME" fs_bytes)")
	last_fs=$(((last_fs + IMAGE_SECTOR - 1) / IMAGE_SECTOR))
	[ "$last_fs" = 0 ] || [ "$last_fs" -ge "$LAST_MIN" ] || LAST_MIN=$last_fs
}

field_of() { awk -v n="$2" -v f="$3" '$7 == n { print $f; exit }' "$WORK/$1"; } # FILE IMAGE_NUMBER FIELD of chosen
is_logical() { [ "$LABEL" = dos ] && [ "$1" -ge 5 ]; }

needed_bytes() { # what the partitions occupy; GPT keeps its second table behind them
	if [ -n "$PARTIAL" ]; then echo 1; return; fi
	if [ "$LABEL" = none ]; then
		needed_end=0
		[ -z "$LAST" ] || needed_end=$(number "$(fact "$LAST_NAME" fs_bytes)")
		[ "$needed_end" != 0 ] && [ "$needed_end" -lt "$IMAGE_SIZE" ] || needed_end=$IMAGE_SIZE
		echo "$needed_end"
		return
	fi
	echo $((($(needed_end) + $(table_behind)) * IMAGE_SECTOR))
}

needed_end() { # the first sector behind all partitions, when the last one is as small as it may be
	if [ -n "$LAST" ]; then echo $(($(field parts "$LAST" 2) + LAST_MIN + BEHIND_SIZE)); return; fi
	awk '{ e = $2 + $3; if (e > m) m = e } END { printf "%.0f\n", m }' "$WORK/parts"
}

table_behind() { [ "$LABEL" != gpt ] && echo 0 || gpt_behind "$IMAGE_SECTOR"; } # sectors
gpt_behind() { echo $((1 + 16384 / $1)); } # SECTOR_BYTES: sectors of the second table of a GPT, at the end of a disk

plan_table() { # writes $WORK/table.new and $WORK/layout: the image's table as it will be on this disk
	limit=$(($(disk_size "${DISK##*/}") / SECTOR - $(table_behind)))
	[ "$LABEL" != dos ] || [ "$limit" -le 4294967295 ] || limit=4294967295
	keep_cache
	# Without last-lba the table takes the size of this disk, not of the one it came from.
	grep -v '^last-lba:\|^device:' "$WORK/table" >"$WORK/table.new"
	: >"$WORK/moves"
	[ -z "$LAST" ] || plan_growth
	while read -r n start size; do
		awk -v n="$n" -v start="$start" -v size="$size" '/ : start=/ { k = $1; sub(/^.*[^0-9]/, "", k)
			if (k == n) { sub(/start= *[0-9]+/, "start=" start); sub(/size= *[0-9]+/, "size=" size) } }
			{ print }' "$WORK/table.new" >"$WORK/table.one" && mv "$WORK/table.one" "$WORK/table.new"
	done <"$WORK/moves"
	table_parts <"$WORK/table.new" >"$WORK/layout"
	# The last word on what fits has sfdisk itself, before anything is written.
	cat "$WORK/table.new" "$WORK/kept" | sfdisk -n -q --no-reread --no-tell-kernel --force "$DISK" >"$WORK/sfdisk.err" 2>&1 ||
		die "refused: the table cannot be made on $DISK: $(last_line "$WORK/sfdisk.err")"
}

plan_growth() { # writes $WORK/moves: number, start and size of each partition that changes
	start=$(field parts "$LAST" 2)
	size=$((limit - start - BEHIND_SIZE))
	rounded=$((size * SECTOR / 1048576 * 1048576 / SECTOR))
	[ "$rounded" -lt "$LAST_MIN" ] || size=$rounded
	plan "partition $LAST: $(($(field parts "$LAST" 3) * SECTOR)) bytes become $((size * SECTOR)), ${LAST_KIND#partclone.} grows with it"
	echo "$LAST $start $size" >>"$WORK/moves"
	if is_logical "$LAST"; then
		awk -v s="$start" '$2 < s && $2 + $3 > s { print }' "$WORK/parts" | while read -r n outer_start _ type; do
			! is_extended "$type" || echo "$n $outer_start $((start + size - outer_start))"
		done >>"$WORK/moves"
	fi
	start=$((start + size))
	for n in $BEHIND; do
		size=$(field parts "$n" 3)
		plan "partition $n: swap moves to sector $start"
		echo "$n $start $size" >>"$WORK/moves"
		start=$((start + size))
	done
}

# ---------------------------------------------------------------- single partitions

plan_partitions() { # writes $WORK/layout, the table that is on the disk, and checks that every item has its room there
	sfdisk -d "$DISK" 2>"$WORK/sfdisk.err" | table_parts >"$WORK/layout"
	[ -s "$WORK/layout" ] || die "refused: $DISK has no partition table: single partitions need one"
	: >"$WORK/growing"
	while read -r name kind n _ _ plain origin; do
		room=$(field layout "$n" 3)
		[ -n "$room" ] || die "refused: $DISK has no partition $n; it has: $(awk '{ printf "%s ", $1 }' "$WORK/layout")"
		! is_extended "$(field layout "$n" 4)" || die "refused: partition $n of $DISK is an extended one"
		need=$(item_bytes "$name" "$kind" "$plain" "$origin")
		[ $((room * SECTOR)) -ge "$need" ] ||
			die "refused: partition $n of $DISK is too small: $name needs $need bytes, it has $((room * SECTOR))"
		! flag RESIZE || plan_one_growth "$n" "$kind"
	done <"$WORK/chosen"
	# shellcheck disable=SC2046
	lose_cache $(awk '{ print $3 }' "$WORK/chosen")
	! flag RESIZE || [ -s "$WORK/growing" ] || die 'refused: resize: nothing of what is written can be resized: order the work without it'
	plan "the table of $DISK stays as it is"
}

plan_one_growth() { # NUMBER KIND
	[ "$2" != swap ] || return 0
	if grows "$2"; then
		grow_tools "$2"
		echo "$1" >>"$WORK/growing"
	elif [ "$2" = fsarchiver ]; then echo "$1" >>"$WORK/growing" # it makes the file system as large as the partition
	else plan "partition $1: ${2#partclone.} cannot be resized and stays as large as it was"; fi
}
