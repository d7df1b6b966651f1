#!/bin/sh
# The whole main job on a tiny project: sync what its Dockerfile needs from the
# sample registry beside it, then show the lock and what is pinned. Everything
# happens in a temporary folder. MIRRORCTL names a program to use instead of
# building one.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ -z "${MIRRORCTL:-}" ]; then
	MIRRORCTL=$work/bin/mirrorctl
	(cd "$here/../.." && go build -o "$MIRRORCTL" .)
fi
mkdir "$work/project"
cp "$here/Dockerfile" "$work/project"
cd "$work/project"
export MIRRORCTL_STORE="$work/store" MIRRORCTL_CONFIG="$here/mirrorctl.toml"

# shown prints a command as a person would type it, and runs it.
shown() {
	printf '\n$ %s\n' "$*"
	case $1 in
	mirrorctl) shift && "$MIRRORCTL" "$@" ;;
	*) "$@" ;;
	esac
}

shown cat Dockerfile
shown mirrorctl sync
shown cat mirror.lock
shown mirrorctl ls
