# Part of pbclient.sh: imported images of programs that need more than a stream and a device: partimage, fsarchiver.
# shellcheck shell=sh disable=SC2154,SC2034  # the variables of pbclient.sh

check_foreign() { # NAME KIND: refuses while the manifest is read what this machine cannot write
	command -v "$2" >/dev/null || die "refused: item $1 needs $2, which is not installed here: pbserv client build --force"
	[ "$2" = fsarchiver ] || return 0
	foreign_fs=$(fact "$1" fs) foreign_tools=''
	case "$foreign_fs" in
	files) die "refused: item $1 is an archive of files without a file system: fsarchiver cannot make a partition of it" ;;
	ext[234]) foreign_tools='mke2fs tune2fs' ;;
	?*) foreign_tools=mkfs.$foreign_fs ;;
	esac
	for foreign_tool in $foreign_tools unshare timeout; do
		command -v "$foreign_tool" >/dev/null || die "refused: item $1 needs $foreign_tool for fsarchiver, which is not installed here"
	done
}

# ---------------------------------------------------------------- partimage

write_partimage() { # an image on stdin to $NODE; run as a member of a stream
	{
		partimage -f3 -b -B gui=no restore "$NODE" stdin <&3 >/dev/null 2>"$WORK/partimage.err" &
		echo $! >>"$WORK/pids"
		wait $!
		foreign_status=$?
	} 3<&0
	cat >/dev/null # what follows the image's end
	[ "$foreign_status" != 0 ] || return 0
	grep -v 'partimage: status:\|^[[:space:]]*$\|no default' "$WORK/partimage.err" | tr '\n' ' ' >&2
	return "$foreign_status"
}

# ---------------------------------------------------------------- fsarchiver

# It wants a file it can seek in. An archive of a cache is one; else it is fetched whole, one at a time, into $WORK, which
# lies in memory in the initramfs.

archive_bytes() { # NAME STORED_BYTES PLAIN_BYTES: of the archive as fsarchiver reads it; 0 when it is not known
	case "$(fact "$1" compressor)" in none) echo "$2" ;; *) echo "$3" ;; esac
}

archive_room() { # bytes that fit into $WORK; when that is memory, 256 MiB stay for programs
	archive_free=$(df -Pk "$WORK" | awk 'NR == 2 { printf "%.0f\n", $4 * 1024 }')
	case "$(stat -f -c %T "$WORK")" in
	tmpfs | ramfs | rootfs)
		archive_memory=$(awk '/^MemAvailable:/ { n = ($2 - 262144) * 1024; printf "%.0f\n", (n > 0 ? n : 0) }' /proc/meminfo)
		[ "$archive_free" != 0 ] && [ "$archive_free" -lt "$archive_memory" ] || archive_free=$archive_memory
		;;
	esac
	echo "$archive_free"
}

archive_cached() { # NAME: whether the cache has it as fsarchiver reads it
	[ -n "$CACHED" ] && [ -f "$CACHED/$1" ] && [ "$(fact "$1" compressor)" = none ]
}

check_archives() { # before anything is written: every archive has its place
	while read -r name kind _ stored sum plain _ <&3; do
		[ "$kind" = fsarchiver ] || continue
		if archive_cached "$name"; then
			stage check "$name"
			! same_item "$CACHED/$name" "$stored" "$sum" || continue
			say "cache: $name is damaged"
			rm -f "$CACHED/$name"
		fi
		archive_need=$(archive_bytes "$name" "$stored" "$plain") archive_have=$(archive_room)
		[ "$(number "$archive_need")" != 0 ] || die "refused: item $name: how large it is uncompressed is not known, and fsarchiver needs" \
			"the whole archive as a file: uncompress it and import it again"
		[ "$archive_need" -le "$archive_have" ] || die "refused: item $name: fsarchiver needs the whole archive of $archive_need bytes as a file," \
			"and this machine has room for $archive_have: deploy it by way of a cache partition (img cache create)"
	done 3<"$WORK/chosen"
}

restore_archive() { # NAME KIND STORED SHA256: to $NODE
	if archive_cached "$1"; then # check_archives has read it
		archive_file=$CACHED/$1
		add_done "$3"
	else
		archive_file=$WORK/archive.fsa
		stream_in "$1" "$2" "$3" "$4" dd of="$archive_file" bs=1048576
	fi
	# It would wait for ever for the password of an archive that has one.
	foreign fsarchiver-info timeout -s KILL 120 fsarchiver archinfo "$archive_file" || die "${WRITTEN}item $1: fsarchiver cannot read it: $ERROR"
	grep -q '^Filesystems count:[[:space:]]*[1-9]' "$WORK/fsarchiver-info.err" || die "${WRITTEN}item $1 holds no file system"
	grep -q '^Encryption algorithm:[[:space:]]*none' "$WORK/fsarchiver-info.err" || die "${WRITTEN}item $1 is encrypted"
	# In a mount namespace of its own: what it mounts goes with it, however it ends.
	mkdir -p /tmp
	foreign fsarchiver unshare -m fsarchiver restfs "$archive_file" "id=0,dest=$NODE" || die "${WRITTEN}item $1: $ERROR"
	rm -f "$WORK/archive.fsa"
}

foreign() { # NAME COMMAND...: runs it to its end, both its outputs in $WORK/NAME.err; false with ERROR
	foreign_name=$1
	shift
	"$@" >"$WORK/$foreign_name.err" 2>&1 </dev/null &
	foreign_pid=$!
	echo $foreign_pid >>"$WORK/pids"
	join "$foreign_name" $foreign_pid
}
