#!/usr/bin/env bash
# One run on all hosts of a Cloud TPU slice, started from your own machine:
#   launch/tpu_pod.sh NAME ZONE --config=configs/regda.py --workdir=/shared/runs/regda
# The slice exists already, gcloud is logged in, and --workdir is a folder that all hosts have mounted (Filestore, NFS).
# Copies what is committed here to every host, installs it and starts one process per host; stays in the foreground
# until the run ends, so start it under tmux where the connection may break.
#
# SIGTERM on any host (a maintenance event) saves at the same step on all; they exit with status 75 and are started
# again. Any other status ends this script with that status. A spot slice that was taken away has to be created again
# first; the same command then goes on where the run was saved.
set -euo pipefail
if [[ $# -lt 3 || $1 == -* || $2 == -* ]]; then
  echo "usage: $0 NAME ZONE --config=... --workdir=..." >&2
  exit 2
fi
name=$1 zone=$2
shift 2

# gcloud exits with the status of a command that failed on one of the hosts.
on_all_hosts() { gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"; }

archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
git -C "$(dirname "$0")/.." archive --format=tar.gz --output="$archive" HEAD
gcloud compute tpus tpu-vm scp "$archive" "$name:jaxpose.tar.gz" --zone="$zone" --worker=all
# The hosts' own Python may be too old; uv brings one.
on_all_hosts 'set -e; rm -rf jaxpose; mkdir jaxpose; tar -xzf jaxpose.tar.gz -C jaxpose; python3 -m pip install -q uv
  python3 -m uv venv -q --allow-existing --python 3.12 jaxpose-env
  python3 -m uv pip install -q --python jaxpose-env/bin/python -e jaxpose "jax[tpu]"'

arguments=$(printf ' %q' "$@")
while true; do
  status=0
  on_all_hosts "cd jaxpose && JAXPOSE_TPU_POD=1 exec ../jaxpose-env/bin/python -m jaxpose.main$arguments" || status=$?
  [[ $status == 75 ]] || exit "$status"
done
