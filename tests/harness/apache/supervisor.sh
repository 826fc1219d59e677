# Runs one Java process that cannot outlive the test process.
#   sh supervisor.sh HOME COMMAND...
# Standard input is a pipe that only the test process can write to. A line is the name of a signal for
# Java. Its end means that the test process is gone, in whatever way: then Java is killed and its store
# deleted. This shell ends when Java does, with its exit code.
home=$1
shift

exec 3<&0 # A background job's standard input is /dev/null.
"$@" 3<&- >>"$home/output.log" 2>&1 &
java=$!

{
  while read -r signal <&3; do kill -"$signal" "$java"; done
  : >"$home/orphaned"
  kill -KILL "$java"
} 2>/dev/null &
reader=$!

wait "$java"
status=$?
kill "$reader" 2>/dev/null
[ ! -e "$home/orphaned" ] || rm -rf "$home/store"
exit "$status"
