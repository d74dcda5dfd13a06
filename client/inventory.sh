# Part of pbclient.sh: what this machine is, as fields of the question for work. The server makes labels of it.
# shellcheck shell=sh disable=SC2154  # the variables of pbclient.sh

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

machine_facts() { # lines of FIELD, a tab, and the value
	while read -r fact fact_file; do
		fact_value=''
		read -r fact_value 2>/dev/null <"/sys/class/dmi/id/$fact_file"
		[ -z "$fact_value" ] || printf '%s\t%s\n' "$fact" "$fact_value"
	done <<-END
		uuid product_uuid
		serial product_serial
		asset chassis_asset_tag
		manufacturer sys_vendor
		product product_name
		board board_name
		board_serial board_serial
		bios_vendor bios_vendor
		bios_version bios_version
		bios_date bios_date
	END
	printf '%s\t%s\n' firmware "$FIRMWARE" machine "$(uname -m)" memory_mb "$(memory_mb)" \
		cpu "$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)" \
		cpus "$(grep -c '^processor' /proc/cpuinfo)" \
		cores "$(cat /sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list 2>/dev/null | sort -u | grep -c .)" \
		macs "$(network_cards | tr '\n' ' ')"
}

as_fields() { # those lines as curl's -K reads them: fields of a form; nothing of a field without a value
	tr -d '\000-\010\013-\037\177' |
		sed -n 's/[\\"]/\\&/g; s/^\([a-z_]*\)\t\(..*\)$/data-urlencode = "\1=\2"/p'
}

disk_facts() { # a line per disk; words after the values say why it is not an internal one
	for disk_name in $(real_disks); do
		printf '/dev/%s size=%s sector=%s model=%s serial=%s %s\n' "$disk_name" "$(disk_size "$disk_name")" \
			"$(blockdev --getss "/dev/$disk_name" 2>/dev/null)" "$(property "$disk_name" MODEL | tr ' ' _)" \
			"$(property "$disk_name" SERIAL | tr ' ' _)" "$(outer "$disk_name" | tr '\n' ' ')"
	done
}
