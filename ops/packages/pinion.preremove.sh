#!/bin/sh
# Before the removal, not before an upgrade; state and configuration stay until a purge or by hand.
set -e
case "${1:-}" in
  remove | 0) ;;
  *) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
  systemctl disable --now pinion.service || true
fi
