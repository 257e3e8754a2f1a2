#!/bin/sh
# After the installation or an upgrade, of a .deb ("configure") and of a .rpm (1 or 2 installed).
set -e
case "${1:-}" in
  configure | 1 | 2 | "") ;;
  *) exit 0 ;;
esac

if ! getent passwd pinion >/dev/null; then
  useradd --system --user-group --home-dir /var/lib/pinion --no-create-home --shell /usr/sbin/nologin pinion
fi
install -d -m 0700 -o pinion -g pinion /var/lib/pinion
chown root:pinion /etc/pinion /etc/pinion/pinion.env
chmod 0750 /etc/pinion
chmod 0640 /etc/pinion/pinion.env

if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  if systemctl is-active --quiet pinion.service; then
    # An upgrade: the new program takes over.
    systemctl restart pinion.service
  elif ! systemctl is-enabled --quiet pinion.service 2>/dev/null; then
    echo "pinion: set DATABASE_URL and PINION_HOST in /etc/pinion/pinion.env, then: systemctl enable --now pinion"
  fi
fi
