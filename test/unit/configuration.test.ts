/** The reference of the configuration: whole, and true. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseConfig } from "@pinion/client";
import { expect, test } from "vitest";
import { z } from "zod";
import { configurationPage, settingsTable } from "../../scripts/lib/configuration.ts";
import { commandSettings } from "../../src/cli/command-settings.ts";
import { replicaConfig, serverSettings } from "../../src/config.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));

test("the page is what the schemas say, with a row for every variable", () => {
  const page = readFileSync(join(root, "docs/configuration.md"), "utf8");
  expect(page).toBe(configurationPage());
  for (const name of Object.keys({ ...serverSettings.shape, ...commandSettings.shape })) {
    expect(page).toContain(`| \`${name}\` | `);
  }
  expect(page).toContain(
    "| `PINION_HEARTBEAT_TTL_MS` | Silence after which a session is closed and its attempts are lost | `60000` | milliseconds | 1 – 2147483647 |",
  );
  expect(page).toMatch(/\| `DATABASE_URL` \| .* \| – \| – \| a text \|/);
});

test("a variable without a description fails, and so does one that hides its unit", () => {
  expect(() => settingsTable(z.object({ PINION_NEW: z.string() }))).toThrow("PINION_NEW has no description");
  expect(() => settingsTable(z.object({ PINION_WAIT_MS: z.number().describe("How long") }))).toThrow(
    "PINION_WAIT_MS tells no unit",
  );
});

/** Variables that the daemon sets for programs, and prefixes of secrets' names. */
const notSettings = new Set([
  ...["PINION_RUN_ID", "PINION_ATTEMPT", "PINION_WATCHER", "PINION_CONVERSATION_ID", "PINION_WINDOW_START"],
  ...[
    "PINION_WINDOW_END",
    "PINION_AGENT",
    "PINION_AGENT_IDENTITY",
    "PINION_INSTALL_ID",
    "PINION_ATTEMPT_MARK",
    "PINION_STATE_MARK",
    "PINION_SNAPSHOT_IN",
    "PINION_SNAPSHOT_OUT",
    "PINION_TURN_ID",
    "PINION_MESSAGE_ID",
    "PINION_SUBJECT_RUN_ID",
  ],
  ...["PINION_WORKSPACE", "PINION_INPUT", "PINION_INPUT_FILE", "PINION_RETRY_AFTER_FILE"],
  // Variables that the daemon passes to itself, and to its own agents.
  ...["PINION_HANDOVER", "PINION_MCP_TOKEN_"],
  ...["PINION_SECRET_", "PINION_SECRET_TEAM_BOT", "PINION_TLS"],
]);

test("no variable is read that the page does not have", () => {
  const known = new Set(Object.keys({ ...serverSettings.shape, ...commandSettings.shape }));
  const unknown = ["src", "clients/ts/src"].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      .filter((path) => path.endsWith(".ts") && !path.startsWith("gen/"))
      .flatMap((path) =>
        [...readFileSync(join(root, folder, path), "utf8").matchAll(/\bPINION_[A-Z_]+/g)]
          .map(([name]) => name)
          .filter((name) => !known.has(name) && !notSettings.has(name))
          .map((name) => `${folder}/${path} names ${name}`),
      ),
  );
  expect(unknown).toEqual([]);
});

test("the example of a device's configuration can be used as it stands", () => {
  const config = parseConfig(readFileSync(join(root, "device.example.toml"), "utf8"));
  expect(config.defaultExecutor).toBe("claude-code");
  expect(config.executors["nightly-report"]).toMatchObject({ stdin: "none", outputLimitBytes: 1_048_576 });
});

test("a TTL that two beats do not fit into is refused, with both settings named", () => {
  const env = { DATABASE_URL: "postgres://x/y", PINION_HEARTBEAT_INTERVAL_MS: "5000" };
  expect(() => replicaConfig({ ...env, PINION_HEARTBEAT_TTL_MS: "9999" })).toThrow(
    "PINION_HEARTBEAT_TTL_MS must be at least twice PINION_HEARTBEAT_INTERVAL_MS",
  );
  expect(replicaConfig({ ...env, PINION_HEARTBEAT_TTL_MS: "10000" }).session.ttlMs).toBe(10_000);
});

test("a blank number is not set, and each that is none is refused by the name of its variable", () => {
  const env = { DATABASE_URL: "postgres://x/y" };
  const numbers = Object.entries(serverSettings.shape).flatMap(([name, setting]) => {
    const fallback = setting.safeParse(undefined);
    return fallback.success && typeof fallback.data === "number" ? [name] : [];
  });
  const ofDefaults = JSON.stringify(replicaConfig(env));
  expect(numbers.length).toBeGreaterThan(20);
  for (const name of numbers) {
    for (const blank of ["", " ", "\t\n"]) {
      expect([name, JSON.stringify(replicaConfig({ ...env, [name]: blank }))]).toEqual([name, ofDefaults]);
    }
    for (const wrong of ["-1", "NaN", "Infinity", "1e400", "1.5", "7 seconds", "٣"]) {
      expect(() => replicaConfig({ ...env, [name]: wrong }), `${name}=${wrong}`).toThrow(name);
    }
  }
});

test.each([
  ["PINION_SMTP_URL", { PINION_MAIL_FROM: "pinion@example.org" }, "smtp://pinion:50%off@mail"],
  ["PINION_NATS_URL", { PINION_BUS: "nats" }, "nats://pinion:50%off@bus"],
])("%s whose password has a percent sign that begins no code is refused by its name", (name, more, url) => {
  const env = { DATABASE_URL: "postgres://x@localhost/x", ...more };
  expect(() => replicaConfig({ ...env, [name]: url })).toThrow(
    `${name}: its name or password has a "%" that must be written as %25`,
  );
  expect(() => replicaConfig({ ...env, [name]: url.replace("%", "%25") })).not.toThrow();
});

test("an address to listen at that no URL can name is refused, with what to write", () => {
  const hostOf = (host: string) => replicaConfig({ DATABASE_URL: "postgres://x/y", PINION_HOST: host }).host;
  expect(["[::1]", "::", "0.0.0.0", " my_host.local ", ""].map(hostOf)).toEqual([
    ...["::1", "::", "0.0.0.0", "my_host.local", "127.0.0.1"],
  ]);
  expect(() => hostOf("fe80::1%eth0")).toThrow("PINION_HOST: no URL can name the zone of fe80::1%eth0");
  for (const host of ["[fe80::1%eth0]", "127.0.0.1:80", "[::1", "a b", "%", "::1]", "http://x", ":::"])
    expect(() => hostOf(host), host).toThrow("PINION_HOST");
});
