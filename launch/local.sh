#!/usr/bin/env bash
# Starts one run as several processes on this machine, for instance one per GPU socket, or to try a multi-host run:
#   launch/local.sh 2 --config=configs/regda.py --workdir=runs/two
# On several hosts without a scheduler, start jaxpose once per host with the same three variables set and one shared
# --workdir. SIGTERM to this script or to any of the processes saves and ends all with status 75 (the same command goes
# on); any other failure is the status of the first process that failed.
set -euo pipefail
[[ ${1:-} =~ ^[1-9][0-9]*$ && $# -ge 2 ]] || { echo "usage: $0 PROCESSES --config=... --workdir=..." >&2; exit 2; }
export JAXPOSE_PROCESSES=$1 JAXPOSE_COORDINATOR=${JAXPOSE_COORDINATOR:-127.0.0.1:12355}
shift
processes=()
trap 'kill "${processes[@]}" 2>/dev/null || true' INT TERM
for ((number = 0; number < JAXPOSE_PROCESSES; number++)); do
  JAXPOSE_PROCESS=$number "${PYTHON:-python}" -m jaxpose.main "$@" &
  processes+=($!)
done
worst=0
for process in "${processes[@]}"; do
  # A signal to this script ends the wait, not the process, which is then busy saving.
  while kill -0 "$process" 2>/dev/null; do wait "$process" || true; done
  status=0
  wait "$process" || status=$?
  if ((worst == 0 || worst == 75)) && ((status != 0)); then worst=$status; fi
done
exit "$worst"
