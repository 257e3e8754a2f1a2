#!/bin/sh
# After the removal. A purge (.deb alone) removes the state: for a device its identity and kept results.
set -e
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload || true
fi
if [ "${1:-}" = purge ]; then
  rm -rf /var/lib/piniond
fi
