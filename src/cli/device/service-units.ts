/**
 * The daemon as a service of the operating system: texts of a systemd unit and a launchd property
 * list.
 */

export type Service = {
  /** Program and arguments. */
  command: readonly [string, ...string[]];
  /** Variables passed to the daemon from the installing environment. */
  environment: Record<string, string>;
  workingDir: string;
  /**
   * For a service of the whole machine: the daemon's user. Undefined: a service of the installing
   * user.
   */
  user: string | undefined;
  /** File for the daemon's output under launchd; systemd has its journal. */
  logFile: string;
};

export const systemdName = "pinion-device.service";
export const launchdLabel = "dev.pinion.device";

/**
 * Stop timeout in s, above the daemon's time for its programs (10 s plus their grace) and results
 * (5 s).
 */
const stopSeconds = 40;
/** Exit codes without hope for a restart: wrong configuration, refused token, another daemon. */
const hopelessExitCodes = [2, 4, 6];

export function systemdUnit(service: Service): string {
  const { command, environment, workingDir, user } = service;
  return `${[
    "# Written by `pinion device install`, which writes it anew; changes belong into `systemctl edit`.",
    "[Unit]",
    "Description=Pinion device daemon",
    "Wants=network-online.target",
    "After=network-online.target",
    "# Offline is normal for a device: it tries again for ever.",
    "StartLimitIntervalSec=0",
    "",
    "[Service]",
    "Type=exec",
    ...(user === undefined ? [] : [`User=${user}`]),
    `ExecStart=${command.map((word) => systemdQuoted(word, "command")).join(" ")}`,
    // The daemon reads its configuration again.
    "ExecReload=/bin/kill -HUP $MAINPID",
    `WorkingDirectory=${workingDir.replaceAll("%", "%%")}`,
    ...Object.entries(environment).map(
      ([name, value]) => `Environment=${systemdQuoted(`${name}=${value}`, "environment")}`,
    ),
    "UMask=0077",
    "Restart=always",
    "RestartSec=5",
    `RestartPreventExitStatus=${hopelessExitCodes.join(" ")}`,
    "# The daemon ends its programs itself, each with its process group; what is left after the time is killed.",
    "KillMode=mixed",
    `TimeoutStopSec=${stopSeconds}`,
    "",
    "[Install]",
    `WantedBy=${user === undefined ? "default.target" : "multi-user.target"}`,
  ].join("\n")}\n`;
}

/**
 * Quotes a word for systemd: % begins a specifier, and $ begins a variable only in a command line.
 */
function systemdQuoted(text: string, where: "command" | "environment"): string {
  const escaped = text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("%", "%%");
  const word = where === "environment" ? escaped : escaped.replaceAll("$", "$$$$");
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `"${word}"`;
}

export function launchdPlist(service: Service): string {
  const { command, environment, workingDir, user, logFile } = service;
  const string = (text: string) => `<string>${xml(text)}</string>`;
  return `${[
    '<?xml version="1.0" encoding="UTF-8"?>',
    '<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">',
    "<!-- Written by `pinion device install`, which writes it anew. -->",
    '<plist version="1.0">',
    "<dict>",
    `  <key>Label</key>${string(launchdLabel)}`,
    ...(user === undefined ? [] : [`  <key>UserName</key>${string(user)}`]),
    "  <key>ProgramArguments</key>",
    "  <array>",
    ...command.map((word) => `    ${string(word)}`),
    "  </array>",
    `  <key>WorkingDirectory</key>${string(workingDir)}`,
    "  <key>EnvironmentVariables</key>",
    "  <dict>",
    ...Object.entries(environment).map(([name, value]) => `    <key>${xml(name)}</key>${string(value)}`),
    "  </dict>",
    "  <key>RunAtLoad</key><true/>",
    "  <key>KeepAlive</key><true/>",
    "  <key>ThrottleInterval</key><integer>10</integer>",
    `  <key>ExitTimeOut</key><integer>${stopSeconds}</integer>`,
    "  <key>Umask</key><integer>63</integer>",
    "  <key>ProcessType</key><string>Background</string>",
    `  <key>StandardOutPath</key>${string(logFile)}`,
    `  <key>StandardErrorPath</key>${string(logFile)}`,
    "</dict>",
    "</plist>",
  ].join("\n")}\n`;
}

function xml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
