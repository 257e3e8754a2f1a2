/** The daemon as a service: the written files, and the calls of the service manager. */
import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { saveIdentity } from "@pinion/client";
import { expect, onTestFinished, test } from "vitest";
import { launchdPlist, systemdUnit } from "../../../src/cli/device/service-units.ts";
import { runCommand } from "../../support/command.ts";

const service = {
  command: ["/opt/node/bin/node", "/opt/pi nion/main.ts", "device", "run", "--label", 'a "b" 100% $HOME \\'],
  environment: { PATH: "/usr/bin:/bin", LABEL: 'x "y" 5% $z', AMP: "a&b<c>" },
  workingDir: "/home/ada",
  user: undefined,
  logFile: "/home/ada/Library/Logs/pinion-device.log",
} as const;

test("the systemd unit is as it is kept here, letter by letter", () => {
  expect(systemdUnit(service)).toBe(`\
# Written by \`pinion device install\`, which writes it anew; changes belong into \`systemctl edit\`.
[Unit]
Description=Pinion device daemon
Wants=network-online.target
After=network-online.target
# Offline is normal for a device: it tries again for ever.
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart=/opt/node/bin/node "/opt/pi nion/main.ts" device run --label "a \\"b\\" 100%% $$HOME \\\\"
ExecReload=/bin/kill -HUP $MAINPID
WorkingDirectory=/home/ada
Environment=PATH=/usr/bin:/bin
Environment="LABEL=x \\"y\\" 5%% $z"
Environment="AMP=a&b<c>"
UMask=0077
Restart=always
RestartSec=5
RestartPreventExitStatus=2 4 6
# The daemon ends its programs itself, each with its process group; what is left after the time is killed.
KillMode=mixed
TimeoutStopSec=40

[Install]
WantedBy=default.target
`);
  const ofMachine = systemdUnit({ ...service, user: "ada" });
  expect(ofMachine).toContain("\nUser=ada\n");
  expect(ofMachine).toContain("\nWantedBy=multi-user.target\n");
});

test("the launchd property list is as it is kept here, letter by letter", () => {
  const text = launchdPlist({ ...service, command: ["/opt/node", "a&b"], user: "ada" });
  expect(text).toBe(`\
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<!-- Written by \`pinion device install\`, which writes it anew. -->
<plist version="1.0">
<dict>
  <key>Label</key><string>dev.pinion.device</string>
  <key>UserName</key><string>ada</string>
  <key>ProgramArguments</key>
  <array>
    <string>/opt/node</string>
    <string>a&amp;b</string>
  </array>
  <key>WorkingDirectory</key><string>/home/ada</string>
  <key>EnvironmentVariables</key>
  <dict>
    <key>PATH</key><string>/usr/bin:/bin</string>
    <key>LABEL</key><string>x "y" 5% $z</string>
    <key>AMP</key><string>a&amp;b&lt;c&gt;</string>
  </dict>
  <key>RunAtLoad</key><true/>
  <key>KeepAlive</key><true/>
  <key>ThrottleInterval</key><integer>10</integer>
  <key>ExitTimeOut</key><integer>40</integer>
  <key>Umask</key><integer>63</integer>
  <key>ProcessType</key><string>Background</string>
  <key>StandardOutPath</key><string>/home/ada/Library/Logs/pinion-device.log</string>
  <key>StandardErrorPath</key><string>/home/ada/Library/Logs/pinion-device.log</string>
</dict>
</plist>
`);
});

const hasSystemdAnalyze = (() => {
  try {
    execFileSync("systemd-analyze", ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
})();

/** A new home, enrolled, with a systemctl that records its calls. */
async function machine(options: { systemctl?: string } = {}) {
  const home = realpathSync(mkdtempSync(join(tmpdir(), "pinion-install-")));
  onTestFinished(() => rmSync(home, { recursive: true, force: true }));
  const bin = join(home, "bin");
  const asked = join(home, "asked");
  mkdirSync(bin);
  if (options.systemctl !== undefined) {
    for (const name of ["systemctl", "launchctl"]) {
      writeFileSync(join(bin, name), `#!/bin/sh\necho "${name} $*" >> ${asked}\n${options.systemctl}\n`);
      chmodSync(join(bin, name), 0o755);
    }
  }
  const env = { HOME: home, PATH: bin, ANTHROPIC_API_KEY: "sk-secret", PINION_TOKEN: "pin_pat_secret" };
  await saveIdentity(join(home, ".local/state/pinion/device"), {
    ...{ installId: "install-0001", deviceId: "d-1", orgId: "local", token: "pin_dev_x" },
    url: "http://localhost:7420",
  });
  return {
    home,
    unit: join(home, ".config/systemd/user/pinion-device.service"),
    asked: () => (existsSync(asked) ? readFileSync(asked, "utf8").trim().split("\n") : []),
    pinion: (...args: string[]) => runCommand(env, ...args),
  };
}

const systemd = ["--manager", "systemd"];

test.runIf(hasSystemdAnalyze)("systemd has nothing against the unit (needs systemd-analyze)", async () => {
  const { home, pinion } = await machine();
  const { out } = await pinion("device", "install", "--print", ...systemd);
  const file = join(home, "pinion-device.service");
  writeFileSync(file, out);
  execFileSync("systemd-analyze", ["verify", "--man=no", file], { stdio: "pipe" });
});

test("install writes the unit, enables and starts it; a second time it changes nothing and restarts nothing", async () => {
  const { unit, pinion, asked, home } = await machine({ systemctl: "" });
  const first = await pinion("device", "install", "--json", ...systemd);
  expect(first.err).toMatch(/wrote .*device\.toml.*\n.*loginctl enable-linger|wrote .*device\.toml/);
  expect(JSON.parse(first.out)).toEqual({ file: unit, is_changed: true, is_started: true });
  expect(asked()).toEqual([
    "systemctl --user daemon-reload",
    "systemctl --user enable pinion-device.service",
    "systemctl --user restart pinion-device.service",
  ]);
  const text = readFileSync(unit, "utf8");
  expect(text).toContain(`device run --state-dir ${home}/.local/state/pinion/device`);
  expect(text).not.toContain("secret");
  const again = await pinion("device", "install", "--json", ...systemd);
  expect(JSON.parse(again.out)).toMatchObject({ is_changed: false, is_started: true });
  expect(asked().at(-1)).toBe("systemctl --user start pinion-device.service");
});

test("without the manager's command the file is written, and what is left to do is said", async () => {
  const { unit, pinion } = await machine();
  const { code, err } = await pinion("device", "install", ...systemd);
  expect(code).toBe(0);
  expect(existsSync(unit)).toBe(true);
  expect(err).toContain(
    "systemctl --user daemon-reload\n  systemctl --user enable --now pinion-device.service",
  );
});

test("a manager that refuses is quoted, and the command fails", async () => {
  const { pinion } = await machine({ systemctl: "echo 'Failed to connect to bus' >&2; exit 1" });
  const { code, err } = await pinion("device", "install", ...systemd);
  expect(code).toBe(1);
  expect(err).toContain("systemctl --user daemon-reload failed: Failed to connect to bus");
});

test("status tells a service that is not installed from one whose daemon does not run; both are no success", async () => {
  const { pinion, unit, home } = await machine({ systemctl: "echo inactive; exit 0" });
  expect(await pinion("device", "status", ...systemd)).toMatchObject({
    code: 1,
    out: expect.stringContaining("not installed"),
  });
  await pinion("device", "install", "--no-start", ...systemd);
  const outbox = join(home, ".local/state/pinion/device/outbox/kept");
  mkdirSync(outbox, { recursive: true });
  const name = [randomUUID(), randomUUID(), Date.UTC(2026, 10, 29), "7000000000000000001-1", "kept"].join(
    ".",
  );
  writeFileSync(join(outbox, name), "x".repeat(2_048));
  expect((await pinion("device", "status", ...systemd)).out).toContain(
    "1 acknowledged results, 2 KiB, the oldest from 2026-11-29T00:00:00.000Z",
  );
  const { code, out } = await pinion("device", "status", "--json", ...systemd);
  expect(code).toBe(1);
  expect(JSON.parse(out)).toMatchObject({ kept_results: 1, kept_bytes: 2_048 });
  expect(JSON.parse(out)).toMatchObject({ file: unit, is_installed: true, state: "inactive", pid: null });
});

test("uninstall stops the service and leaves the device as it is; again, there is nothing to do", async () => {
  const { pinion, unit, asked, home } = await machine({ systemctl: "" });
  await pinion("device", "install", ...systemd);
  expect((await pinion("device", "uninstall", ...systemd)).code).toBe(0);
  expect(existsSync(unit)).toBe(false);
  expect(existsSync(join(home, ".local/state/pinion/device/identity.json"))).toBe(true);
  expect(asked().slice(-2)).toEqual([
    "systemctl --user disable --now pinion-device.service",
    "systemctl --user daemon-reload",
  ]);
  expect((await pinion("device", "uninstall", ...systemd)).out).toContain("not installed");
});

test("launchd is asked to load the property list", async () => {
  const { pinion, asked, home } = await machine({ systemctl: "" });
  expect((await pinion("device", "install", "--manager", "launchd")).code).toBe(0);
  const file = join(home, "Library/LaunchAgents/dev.pinion.device.plist");
  expect(existsSync(file)).toBe(true);
  expect(asked().at(-1)).toMatch(new RegExp(`^launchctl bootstrap gui/\\d+ ${file}$`));
});

test("a machine that is no device, and a manager that does not exist, are refused with what to do", async () => {
  const { pinion, home } = await machine();
  rmSync(join(home, ".local"), { recursive: true });
  expect(await pinion("device", "install", ...systemd)).toMatchObject({
    code: 6,
    err: expect.stringContaining("pinion device enroll"),
  });
  expect(await pinion("device", "install", "--print", "--manager", "cron")).toMatchObject({ code: 2 });
});
