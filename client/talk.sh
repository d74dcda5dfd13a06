# Part of pbclient.sh: talking with the server and with who watches: messages, requests, progress, cancel, the result.
# shellcheck shell=sh disable=SC2154,SC2034  # the variables of pbclient.sh

say() {
	echo "pbclient: $*"
	[ -z "$WORK" ] || echo "$*" >>"$WORK/log"
}

last_line() { tr '\r' '\n' <"$1" | grep -v '^[[:space:]]*$' | tail -n 1 | tr -d '[:cntrl:]' | cut -c 1-200; }

stage() { # STAGE [ITEM]: what the next progress message says
	printf '%s\n%s\n' "$1" "${2:-}" >"$WORK/stage"
	say "$1 ${2:-}"
	! cancelled || die cancelled
}

cancelled() { [ -e "$WORK/cancelled" ]; }

die() { # REASON: reports the failure, cleans up, ends (only ever called in the main shell)
	trap '' INT TERM HUP
	! cancelled || set -- cancelled
	say "FAILED: $*"
	stop_progress
	kill_workers
	report 0 "$*"
	[ -n "$JOB" ] || exit 3
	[ -z "${PB_INITRAMFS:-}" ] || [ "$FINISH" != none ] || stay
	exit 1
}

cleanup() {
	[ -n "$WORK" ] || return 0
	stop_progress
	kill_workers
	for cleanup_mount in "$WORK/cache" "$WORK/mnt"; do
		! grep -q " $cleanup_mount " /proc/mounts || umount "$cleanup_mount" || umount -l "$cleanup_mount"
	done
	if [ -f "$WORK/loops" ]; then
		while read -r loop; do losetup -d "$loop"; done <"$WORK/loops"
	fi
	grep -q " $WORK/" /proc/mounts || rm -rf "$WORK"
}

http() { # OUTPUT_FILE CURL_ARGUMENTS...: true for a 2xx answer; else ERROR is the server's own line or curl's
	http_out=$1
	shift
	: >"$http_out"
	http_code=$(curl -sS --connect-timeout 10 -H "@$WORK/auth" -o "$http_out" -w '%{http_code}' "$@" 2>"$WORK/http.err")
	http_exit=$?
	case "$http_exit/$http_code" in 0/2??) return 0 ;; esac
	ERROR="server answered $http_code: $(head -n 1 "$http_out" | cut -c 1-200)"
	[ "$http_exit" = 0 ] || ERROR=$(tail -n 1 "$WORK/http.err")
	return 1
}

persist() { # TRIES HTTP_ARGUMENTS...: http, again after a pause while the server cannot be reached or is in trouble
	persist_left=$1
	shift
	until http "$@"; do
		persist_left=$((persist_left - 1))
		case "$http_exit/$http_code" in 0/4?? | 0/507) return 1 ;; esac # 507: the store has no room
		[ "$persist_left" -gt 0 ] || return 1
		[ -z "$LOOP_PID" ] || ! cancelled || return 1 # the result itself is still told
		say "$ERROR; trying again"
		sleep "$RETRY_PAUSE"
	done
}

report() { # OK REASON
	[ -n "$JOB" ] || return 0
	tail -n 40 "$WORK/log" >"$WORK/log.tail"
	set -- --data-urlencode "ok=$1" --data-urlencode "reason=$2"
	[ "$PROTOCOL" -lt 2 ] || set -- "$@" --data-urlencode "verified=$VERIFIED" --data-urlencode "waited=$(waited_ms)"
	[ "$PROTOCOL" -lt 2 ] || [ ! -s "$WORK/plan" ] || set -- "$@" --data-urlencode "plan@$WORK/plan"
	persist "$PART_TRIES" "$WORK/answer" --max-time 30 "$@" --data-urlencode "seconds=$(($(date +%s) - STARTED))" \
		--data-urlencode "bytes=$(done_bytes)" --data-urlencode "log@$WORK/log.tail" \
		"$URL/client/v1/jobs/$JOB/result" || say "result not delivered: $ERROR"
}

plan() { # TEXT: a line of what is about to be done; a dry run reports them all
	say "plan: $*"
	echo "$*" >>"$WORK/plan"
}

# ---------------------------------------------------------------- progress and cancel

done_bytes() {
	done_known=0
	read -r done_known _ 2>/dev/null <"$WORK/done"
	echo "$done_known"
}

add_done() { # BYTES: counted now, and not by the last stream's meter any more
	add_meter=''
	read -r add_meter _ 2>/dev/null <"$WORK/meter"
	echo "$(($(done_bytes) + $1)) $add_meter" >"$WORK/done.new" && mv "$WORK/done.new" "$WORK/done"
}

progress_bytes() { # what is done, and what the meter of the last stream has passed on; falls only when a stream begins again
	meter_pid='' meter_times=1 told_done=0 told_meter=''
	read -r meter_pid meter_times _ 2>/dev/null <"$WORK/meter"
	read -r told_done told_meter 2>/dev/null <"$WORK/done"
	[ "$meter_pid" = "$told_meter" ] || told_done=$((told_done + $(metered_bytes "$meter_pid" "$meter_times")))
	echo "$told_done"
}

metered_bytes() { # PID TIMES: what a meter has passed on, also when it has ended; a tee writes each byte twice
	last_meter='' last_metered=0
	read -r last_meter last_metered 2>/dev/null <"$WORK/metered"
	[ "$last_meter" = "$1" ] || last_metered=0
	metered=$(awk -v n="$2" '/^wchar:/ { printf "%.0f\n", $2 / n }' "/proc/$1/io" 2>/dev/null)
	[ "${metered:-0}" -lt "$last_metered" ] || last_metered=${metered:-0}
	echo "$1 $last_metered" >"$WORK/metered"
	echo "$last_metered"
}

waited_ms() { echo $(($(cat "$WORK/waited" 2>/dev/null || echo 0) + WAITED_MS)); }

uptime_ms() { # sets NOW_MS, without a process
	read -r NOW_MS _ </proc/uptime
	NOW_MS=${NOW_MS%.*}${NOW_MS#*.}0
}

wait_loop() { # adds up the time in which the first member of a download has nothing to read
	wait_sum=0
	uptime_ms
	while sleep 0.2 >/dev/null; do
		wait_before=$NOW_MS
		uptime_ms
		read -r wait_pid _ wait_from 2>/dev/null <"$WORK/meter" && [ "$wait_from" = server ] || continue
		case "$(cat "/proc/$wait_pid/wchan" 2>/dev/null)" in *pipe_read* | *pipe_wait_readable*) ;; *) continue ;; esac
		wait_sum=$((wait_sum + NOW_MS - wait_before))
		echo $wait_sum >"$WORK/waited.new" && mv "$WORK/waited.new" "$WORK/waited"
	done 2>/dev/null
}

total_bytes() { # known total; while capturing, partclone's own count of used bytes replaces the partition's size
	total=$(cat "$WORK/total" 2>/dev/null || echo 0)
	if [ -s "$WORK/estimate" ] && [ -s "$WORK/source.err" ]; then
		used=$(tr '\r' '\n' <"$WORK/source.err" | awk '/^Space in use:/ { for (i = 1; i < NF; i++) if ($(i + 1) == "Blocks") u = $i }
			/^Block size:/ { b = $3 } END { if (u && b) printf "%.0f\n", u * b }')
		[ -z "$used" ] || total=$((total - $(cat "$WORK/estimate") + used))
	fi
	echo "$total"
}

progress_loop() {
	last_bytes=0 last_time=$(date +%s) shown=0
	while sleep 2 >/dev/null 2>&1; do # without our output: who reads that would wait for it
		if cancelled; then kill_workers; continue; fi
		[ ! -e "$WORK/over" ] || continue # img auto: the server has closed this job
		now=$(date +%s)
		bytes=$(progress_bytes)
		# A meter counts what a tool says of itself, too.
		[ "$bytes" -ge "$last_bytes" ] || [ $((last_bytes - bytes)) -gt 1048576 ] || bytes=$last_bytes
		rate=0
		[ "$bytes" -le "$last_bytes" ] || [ "$now" -le "$last_time" ] || rate=$(((bytes - last_bytes) / (now - last_time)))
		last_bytes=$bytes last_time=$now total=$(total_bytes)
		{ read -r name; read -r item; } <"$WORK/stage"
		text="$name $item"
		[ "$total" = 0 ] || text="$text: $((bytes / 1000000)) of $((total / 1000000)) MB, $((rate / 1000000)) MB/s"
		case "$ACTION" in script | maintenance) shown=$now ;; esac # others write to the console
		[ $((now - shown)) -lt 10 ] || { echo "pbclient: $text"; shown=$now; }
		answer=$(curl -sS --max-time 10 -H "@$WORK/auth" --data-urlencode "stage=$name" --data-urlencode "item=$item" \
			--data-urlencode "bytes=$bytes" --data-urlencode "total=$total" --data-urlencode "rate=$rate" \
			--data-urlencode "waited=$(waited_ms)" --data-urlencode "message=$text" "$URL/client/v1/jobs/$JOB/progress" 2>/dev/null)
		case "$answer" in CANCEL*) : >"$WORK/cancelled"; echo "pbclient: the server cancelled this job"; kill_workers ;; esac
	done
}

start_progress() {
	progress_loop &
	LOOP_PID=$!
	wait_loop &
	WAIT_PID=$!
}

stop_progress() {
	for stop_pid in $LOOP_PID $WAIT_PID; do { kill "$stop_pid" && wait "$stop_pid"; } 2>/dev/null; done
	LOOP_PID='' WAIT_PID=''
}

workers() { # what runs for this job: members of streams, and whatever belongs to a session of its own
	cat "$WORK/pids"
	[ -s "$WORK/sessions" ] || return 0
	cat /proc/[0-9]*/stat 2>/dev/null | awk -v ours="$(tr '\n' ' ' <"$WORK/sessions")" '
		BEGIN { n = split(ours, list); for (i = 1; i <= n; i++) is[list[i]] = 1 }
		{ pid = $1; sub(/.*\) /, ""); if ($4 in is) print pid }'
}

kill_workers() {
	kill_list=$(workers)
	[ -n "$kill_list" ] || return 0
	# shellcheck disable=SC2086
	kill $kill_list 2>/dev/null
	sleep 1
	kill_list=$(workers)
	# shellcheck disable=SC2086
	[ -z "$kill_list" ] || kill -9 $kill_list 2>/dev/null
	return 0
}
