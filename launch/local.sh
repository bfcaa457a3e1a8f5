#!/usr/bin/env bash
# Starts one run as several processes on this machine, for instance one per GPU socket, or to try a multi-host run:
#   launch/local.sh 2 --config=configs/regda.py --workdir=runs/two
# On several hosts, start jaxpose once per host with the same three variables set and one shared --workdir.
set -euo pipefail
[[ ${1:-} =~ ^[1-9][0-9]*$ && $# -ge 2 ]] || { echo "usage: $0 PROCESSES --config=... --workdir=..." >&2; exit 2; }
export JAXPOSE_PROCESSES=$1 JAXPOSE_COORDINATOR=${JAXPOSE_COORDINATOR:-127.0.0.1:12355}
shift
processes=()
trap 'kill "${processes[@]}" 2>/dev/null' INT TERM
for ((number = 0; number < JAXPOSE_PROCESSES; number++)); do
  JAXPOSE_PROCESS=$number "${PYTHON:-python}" -m jaxpose.main "$@" &
  processes+=($!)
done
status=0
for process in "${processes[@]}"; do
  wait "$process" || status=$?
done
exit $status
