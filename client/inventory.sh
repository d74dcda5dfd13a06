# Part of pbclient.sh: what this machine is, as fields of the question for work. The server makes labels of it.
# shellcheck shell=sh disable=SC2154  # the variables of pbclient.sh

dmi() { cat "/sys/class/dmi/id/$1" 2>/dev/null; }

tell() { # FIELD VALUE: a line for curl's -K; nothing where nothing is known
	tell_value=$(printf '%s' "$2" | tr -d '[:cntrl:]' | sed 's/[\\"]/\\&/g')
	[ -z "$tell_value" ] || printf 'data-urlencode = "%s=%s"\n' "$1" "$tell_value"
}

memory_mb() { # what is installed, as far as the kernel's memory blocks say; else what is left for programs
	memory_block=$(cat /sys/devices/system/memory/block_size_bytes 2>/dev/null)
	set -- /sys/devices/system/memory/memory[0-9]*
	if [ -n "$memory_block" ] && [ -e "$1" ]; then echo $((0x$memory_block / 1048576 * $#))
	else awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo; fi
}

network_cards() { # the address of every card that is a device, not only an interface
	for card in /sys/class/net/*; do
		[ ! -e "$card/device" ] || [ "$(cat "$card/type")" != 1 ] || cat "$card/address"
	done
}

machine_facts() {
	tell uuid "$(dmi product_uuid)"
	tell serial "$(dmi product_serial)"
	tell asset "$(dmi chassis_asset_tag)"
	tell manufacturer "$(dmi sys_vendor)"
	tell product "$(dmi product_name)"
	tell board "$(dmi board_name)"
	tell board_serial "$(dmi board_serial)"
	tell bios_vendor "$(dmi bios_vendor)"
	tell bios_version "$(dmi bios_version)"
	tell bios_date "$(dmi bios_date)"
	tell firmware "$FIRMWARE"
	tell machine "$(uname -m)"
	tell cpu "$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)"
	tell cpus "$(grep -c '^processor' /proc/cpuinfo)"
	tell cores "$(cat /sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list 2>/dev/null | sort -u | grep -c .)"
	tell memory_mb "$(memory_mb)"
	tell macs "$(network_cards | tr '\n' ' ')"
}

disk_facts() { # a line per disk; words after the values say why it is not an internal one
	for disk_name in $(real_disks); do
		printf '/dev/%s size=%s sector=%s model=%s serial=%s %s\n' "$disk_name" "$(disk_size "$disk_name")" \
			"$(blockdev --getss "/dev/$disk_name" 2>/dev/null)" "$(property "$disk_name" MODEL | tr ' ' _)" \
			"$(property "$disk_name" SERIAL | tr ' ' _)" "$(outer "$disk_name" | tr '\n' ' ')"
	done
}
