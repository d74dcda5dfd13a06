# Part of pbclient.sh: the actions in which something else than the client works: a script of the server, or a person.
# shellcheck shell=sh disable=SC2154,SC2034  # the variables of pbclient.sh

task_environment() { # what scripts and shells know of their job
	(umask 077 && echo "$TOKEN" >"$WORK/token")
	PB_URL=$URL PB_MAC=$MAC PB_JOB=$JOB PB_TOKEN_FILE=$WORK/token PB_OVER=$WORK/over
	export PB_URL PB_MAC PB_JOB PB_TOKEN_FILE PB_OVER
	[ -n "$REBOOT" ] || { PB_NO_REBOOT=yes && export PB_NO_REBOOT; }
}

script() { # runs the bundle's script
	stage script "$(value BUNDLE)"
	persist "$PART_TRIES" "$WORK/script" --max-time 60 "$URL/client/v1/jobs/$JOB/script" || die "no script: $ERROR"
	perform script
}

script_around() { # before|after: the work's own scripts around a restore or a capture
	flag "$(echo "$1" | tr '[:lower:]' '[:upper:]')" || return 0
	stage script "$1"
	persist "$PART_TRIES" "$WORK/script" --max-time 60 "$URL/client/v1/jobs/$JOB/scripts/$1" || die "${WRITTEN}no script $1: $ERROR"
	PB_ACTION=$ACTION PB_IMAGE=$(value IMAGE) PB_DISK=$DISK
	export PB_ACTION PB_IMAGE PB_DISK
	perform "script $1"
}

perform() { # NAME: runs $WORK/script in a session and a folder of its own; what it leaves running ends with it
	task_environment
	rm -rf "$WORK/run"
	mkdir "$WORK/run" && fifos f1 f2
	(cd "$WORK/run" && exec setsid sh "$WORK/script") </dev/null >"$WORK/f1" 2>&1 &
	script_pid=$!
	echo $script_pid >>"$WORK/sessions"
	tee "$WORK/f2" <"$WORK/f1" &
	tee_pid=$!
	tail -n 60 <"$WORK/f2" >"$WORK/output" &
	tail_pid=$!
	wait $script_pid
	script_status=$?
	kill_workers
	# A process that left the session may still hold the output: it is not waited for.
	for script_try in 1 2 3 4 5 6; do
		kill -0 $tee_pid 2>/dev/null || break
		[ "$script_try" = 6 ] && kill $tee_pid 2>/dev/null || sleep 0.5
	done
	wait $tail_pid
	: >"$WORK/sessions"
	sed 's/^/| /' "$WORK/output" | tail -n 35 >>"$WORK/log"
	! cancelled || die cancelled
	script_last=$(last_line "$WORK/output")
	[ "$script_status" = 0 ] || die "$WRITTEN$1 ended with $script_status${script_last:+: $script_last}"
}

# ---------------------------------------------------------------- maintenance

greeting() {
	printf '\nImaging maintenance of %s. "img help" names the commands for imaging; "exit" ends it%s.\n\n' "$MAC" \
		"$([ "$FINISH" = none ] || [ -z "$REBOOT" ] || echo " ($FINISH)")"
}

maintenance() { # a shell on every console, or on the terminal that this script was started on; the first exit ends it
	stage maintenance
	task_environment
	PATH=$PATH:$HERE
	if [ -z "${PB_INITRAMFS:-}" ]; then
		greeting
		sh -c 'echo $$ >"$0"; exec "${SHELL:-sh}"' "$WORK/pids"
	else
		console_shells
	fi
	: >"$WORK/pids"
	! cancelled || die cancelled
}

console_shells() {
	shell_consoles=$(consoles)
	[ -n "$shell_consoles" ] || die 'no console can be read from'
	dmesg -n 4 2>/dev/null # the kernel's notes on partitions would write over what is typed
	HOME=/root PS1="$MAC # "
	export HOME PS1
	mkdir -p "$HOME"
	for shell_console in $shell_consoles; do console_shell "$shell_console" & done
	until [ -e "$WORK/ended" ] || cancelled; do sleep 1; done
	kill_workers
	: >"$WORK/sessions"
}

consoles() { # the devices of all consoles of the kernel
	for console in $(cat /sys/class/tty/console/active); do
		# tty0 means the screen that is shown; it can be no session's terminal.
		[ "$console" != tty0 ] || console=$(cat /sys/class/tty/tty0/active)
		(: <>"/dev/$console") 2>/dev/null && echo "$console"
	done | sort -u
}

console_shell() { # NAME
	case "$1" in tty[0-9]*) TERM=linux ;; *) TERM=vt220 ;; esac
	export TERM
	stty sane <"/dev/$1" 2>/dev/null
	greeting >"/dev/$1"
	# What a script runs beside itself ignores Ctrl-C; this shell and what it runs must not.
	env --default-signal=INT,QUIT setsid sh -c 'exec sh -i <>"/dev/$0" >&0 2>&0' "$1" &
	echo $! >>"$WORK/sessions"
	wait $!
	: >"$WORK/ended"
}
