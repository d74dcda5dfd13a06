# Part of pbclient.sh: the restored system: add-on images laid over it, and its file with the image-safe data.
# shellcheck shell=sh disable=SC2154,SC2034  # the variables of pbclient.sh

plan_addons() { # fetches what the add-ons are, and refuses what cannot be laid over a system
	for addon in $(value ADDONS); do
		case "$addon" in */* | .*) die "refused: the server names an add-on '$addon'" ;; esac
		persist "$PART_TRIES" "$WORK/addon" --max-time 60 "$URL/client/v1/jobs/$JOB/addons/$addon/manifest" || die "refused: no add-on $addon: $ERROR"
		[ "$(head -n 1 "$WORK/addon")" = 'pbserv-image 1' ] ||
			die "refused: the manifest of the add-on $addon is of a kind this client does not know"
		sed -n 's/^item //p' "$WORK/addon" >"$WORK/addon.$addon.list"
		sed -n 's/^fact //p' "$WORK/addon" >"$WORK/addon.$addon.facts"
		[ -s "$WORK/addon.$addon.list" ] || die "refused: the add-on $addon is empty"
		FACTS=addon.$addon.facts
		while read -r name kind _ stored sum _; do
			[ "$kind" = tree ] || die "refused: item $name of the add-on $addon is of kind $kind, not a tree of files"
			case "$name" in */* | .*) die "refused: the add-on $addon names an item $name" ;; esac
			[ "${#sum}" = 64 ] || die "refused: item $name of the add-on $addon has no checksum"
			unpacker "$name" "$kind"
			plan "add-on $addon ($stored bytes) over the system"
		done <"$WORK/addon.$addon.list"
		FACTS=facts
	done
}

finish_system() {
	addons=$(value ADDONS)
	[ -n "$addons" ] || flag IDENTITY || return 0
	stage system
	if ! open_system; then
		[ -z "$addons" ] || die "${WRITTEN}no partition with a system was found for the add-ons $addons: $ERROR"
		say "note: no identity file was written: no partition with a system was found: $ERROR"
		return
	fi
	say "system: $SYSTEM on $NODE"
	for addon in $addons; do lay_over "$addon"; done
	! flag IDENTITY || write_identity
	# A block of a file that could not be written is known to its file system alone, and as long as that is mounted.
	sync -f "$WORK/mnt" 2>"$WORK/sync.err" || die "${WRITTEN}not all that was written to $NODE is on the disk: $(last_line "$WORK/sync.err")"
	umount "$WORK/mnt" || die "${WRITTEN}the system's partition cannot be unmounted"
}

open_system() { # mounts the partition with a Linux or a Windows; sets SYSTEM and ROOT
	ERROR='none of those that were written holds /etc or \Windows'
	mkdir -p "$WORK/mnt"
	while read -r _ kind number _ <&4; do
		[ "$kind" != swap ] || continue # else by what is there: whatever tool wrote it may have written a system
		target_node "$number"
		system_type=$(blkid -p -o value -s TYPE "$NODE")
		case "$system_type" in
		ext[234] | xfs | btrfs)
			mount -t "$system_type" "$NODE" "$WORK/mnt" 2>"$WORK/mount.err" || { ERROR=$(last_line "$WORK/mount.err"); continue; }
			SYSTEM=linux
			for ROOT in "$WORK/mnt" "$WORK/mnt/@" "$WORK/mnt/@rootfs" "$WORK/mnt/root"; do
				[ ! -d "$ROOT/etc" ] || return 0
			done
			;;
		ntfs)
			ntfs-3g -o windows_names "$NODE" "$WORK/mnt" 2>"$WORK/mount.err" || { ERROR=$(last_line "$WORK/mount.err"); continue; }
			SYSTEM=windows ROOT=$WORK/mnt
			[ ! -d "$ROOT/Windows" ] && [ ! -d "$ROOT/WINDOWS" ] || return 0
			;;
		*) continue ;;
		esac
		umount "$WORK/mnt"
	done 4<"$WORK/chosen"
	return 1
}

lay_over() { # NAME: an add-on image, one archive of files
	stage add-on "$1"
	ITEMS=addons/$1/items FACTS=addon.$1.facts CACHED=''
	while read -r name kind _ stored sum _ <&5; do
		# Before a file of it is there: the archive twice from the server, for nothing here has room for it.
		stream_in "$name" "$kind" "$stored" "$sum" list_tree
		check_tree "$1"
		if [ "$SYSTEM" = windows ]; then
			stream_in "$name" "$kind" "$stored" "$sum" tar -x -f - --no-same-owner --no-same-permissions -C "$ROOT"
		else
			# what is there stays what it is: /lib a link to usr/lib, and the owner and mode of /etc
			stream_in "$name" "$kind" "$stored" "$sum" tar -x -f - -p --keep-directory-symlink --no-overwrite-dir \
				--numeric-owner --xattrs '--xattrs-include=*' --acls -C "$ROOT"
		fi
	done 5<"$WORK/addon.$1.list"
	ITEMS=items FACTS=facts
}

list_tree() { # an archive on stdin to the names in it, in $WORK/tree; run as a member of a stream
	tar -t -f - --quoting-style=literal >"$WORK/tree"
}

check_tree() { # ADD-ON: refuses one with a folder that is a link out of the system: tar would follow it into the running one
	awk -F / '{ p = ""; for (i = 1; i < NF; i++) if ($i != "" && $i != ".") { p = p "/" $i; if (!(p in seen)) print p; seen[p] = 1 } }' \
		"$WORK/tree" >"$WORK/folders"
	while IFS= read -r tree_folder <&6; do
		stays_inside "$ROOT$tree_folder" || die "${WRITTEN}the add-on $1 cannot be laid over it: its folder $tree_folder is a link to" \
			"$(readlink "$ROOT$tree_folder") there, which leads out of the system as long as that does not run itself:" \
			"make it a relative link in the image, or a folder"
	done 6<"$WORK/folders"
}

stays_inside() { # PATH below $ROOT: false for a link that leads out of it from here, or nowhere
	[ -L "$1" ] || return 0
	case "$(readlink -f "$1")/" in "$(readlink -f "$ROOT")"/*) return 0 ;; esac
	return 1
}

write_identity() { # the file as the server wrote it for this kind of system; it has a token
	stage identity
	persist "$PART_TRIES" "$WORK/identity" --max-time 60 "$URL/client/v1/jobs/$JOB/identity?form=$SYSTEM" || die "${WRITTEN}no identity: $ERROR"
	identity_folder=$ROOT/etc/pbserv identity_file=identity
	[ "$SYSTEM" != windows ] || { identity_folder=$ROOT/pbserv identity_file=identity.txt; }
	for identity_path in "$(dirname "$identity_folder")" "$identity_folder" "$identity_folder/$identity_file"; do
		stays_inside "$identity_path" ||
			die "${WRITTEN}the identity file could not be written: ${identity_path#"$ROOT"} is a link that leads out of the system"
	done
	# shellcheck disable=SC2174  # only the last folder is new
	mkdir -p -m 755 "$identity_folder" && (umask 077 && cat "$WORK/identity" >"$identity_folder/$identity_file") ||
		die "${WRITTEN}the identity file could not be written"
	chmod 600 "$identity_folder/$identity_file" 2>/dev/null
	rm -f "$WORK/identity"
}
