#!/bin/sh
# After the installation or an upgrade, of a .deb ("configure") and of a .rpm (1 or 2 installed).
set -e
case "${1:-}" in
  configure | 1 | 2 | "") ;;
  *) exit 0 ;;
esac

if ! getent passwd piniond >/dev/null; then
  useradd --system --user-group --home-dir /var/lib/piniond --no-create-home --shell /usr/sbin/nologin piniond
fi
install -d -m 0700 -o piniond -g piniond /var/lib/piniond
chown root:piniond /etc/piniond /etc/piniond/piniond.env
chmod 0750 /etc/piniond
chmod 0640 /etc/piniond/piniond.env

if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  if systemctl is-active --quiet piniond.service; then
    # An upgrade: the new program takes over.
    systemctl restart piniond.service
  elif ! systemctl is-enabled --quiet piniond.service 2>/dev/null; then
    echo "piniond: enrol this machine, then start the daemon:"
    echo "  runuser -u piniond -- env HOME=/var/lib/piniond piniond enroll --state-dir /var/lib/piniond \\"
    echo "    --config /etc/piniond/device.toml --url https://SERVER --join-code CODE"
    echo "  systemctl enable --now piniond"
  fi
fi
